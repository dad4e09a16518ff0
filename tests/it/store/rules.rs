//! The newest good text of each rule file.

use rollgate::{
    engine::observation::Time,
    store::{Store, StoredRules},
};

use super::{folder, open};

#[tokio::test]
async fn the_newest_text_of_each_rule_file_outlives_the_process() {
    let folder = folder();
    let path = folder.path().join("rules.db");
    let rules = |name: &str, text: &str, loaded| StoredRules {
        name: name.to_owned(),
        text: text.to_owned(),
        loaded: Time(loaded),
    };
    let store = open(&path).await;
    for one in [rules("till", "a", 1), rules("shop", "b", 2), rules("shop", "ü\n", 3)] {
        store.keep_rules(one).await.unwrap();
    }
    store.close().await;
    let store = open(&path).await;
    assert_eq!(store.kept_rules().await.unwrap(), [rules("shop", "ü\n", 3), rules("till", "a", 1)]);
    store.forget_rules("shop").await.unwrap();
    store.forget_rules("never").await.unwrap();
    assert_eq!(store.kept_rules().await.unwrap(), [rules("till", "a", 1)]);
}
