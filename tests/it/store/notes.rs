//! Notes outlive the process, are written over what was read only, and are bounded.

use rollgate::{
    engine::observation::Time,
    store::{
        Store,
        notes::{NOTE_BYTES_MAX, NOTES_MAX, Notes, Over},
    },
};

use super::{folder, open};

#[tokio::test]
async fn a_note_is_written_over_what_was_read_and_nothing_else() {
    let folder = folder();
    let path = folder.path().join("notes.db");
    let store = open(&path).await;
    let write = async |before, text, at| {
        store.write_note("a", Over { before, text }, Time(at)).await.unwrap()
    };
    assert!(!write(Some("none"), "x", 1).await, "there was nothing to write over");
    assert!(write(None, "one", 1).await);
    assert!(!write(None, "two", 2).await);
    assert!(!write(Some("two"), "three", 2).await);
    assert!(write(Some("one"), "two", 3).await);
    let long = "x".repeat(NOTE_BYTES_MAX + 1);
    let refused = store.write_note("a", Over { before: Some("two"), text: &long }, Time(4)).await;
    assert!(refused.unwrap_err().to_string().contains("at most"));
    store.close().await;
    let store = open(&path).await;
    assert_eq!(store.note("a").await.unwrap().as_deref(), Some("two"));
    assert_eq!(store.note("b").await.unwrap(), None);
    assert_eq!(store.prune_notes(Time(3)).await.unwrap(), 0);
    assert_eq!(store.prune_notes(Time(4)).await.unwrap(), 1);
    assert_eq!(store.note("a").await.unwrap(), None);
}

#[tokio::test]
async fn of_two_who_write_at_once_one_learns_of_it() {
    let folder = folder();
    let path = folder.path().join("notes.db");
    let (one, two) = (open(&path).await, open(&path).await);
    assert!(one.write_note("n", Over { before: None, text: "0" }, Time(0)).await.unwrap());
    for round in 0..20 {
        let (before, text) = (round.to_string(), (round + 1).to_string());
        let over = Over { before: Some(&before), text: &text };
        let (a, b) = tokio::join!(
            one.write_note("n", over, Time(round)),
            two.write_note("n", over, Time(round))
        );
        assert!(a.unwrap() != b.unwrap(), "round {round}");
    }
}

#[tokio::test]
async fn there_is_a_limit_on_notes() {
    let store = rollgate::store::sqlite::SqliteStore::in_memory().await.unwrap();
    for number in 0..NOTES_MAX {
        let name = number.to_string();
        store.write_note(&name, Over { before: None, text: "" }, Time(0)).await.unwrap();
    }
    let over = Over { before: None, text: "" };
    let refused = store.write_note("more", over, Time(0)).await.unwrap_err();
    assert!(refused.to_string().contains("10000 notes are kept already"), "{refused}");
    assert!(!store.write_note("7", over, Time(0)).await.unwrap());
    let over = Over { before: Some(""), text: "x" };
    assert!(store.write_note("7", over, Time(0)).await.unwrap());
}
