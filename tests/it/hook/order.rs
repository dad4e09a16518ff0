//! One command at a time, in order; what comes too late, and what is no longer the world that was
//! judged.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::stand::{Stand, advance, verdict};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_events_at_once_run_once_each_and_one_after_the_other() {
    let script = "mkdir busy || { echo two at once >> overlap; exit 1; }\n\
                  echo $ROLLGATE_ID >> diary; rmdir busy";
    let stand = Stand::with_script("", script);
    let hook = stand.start();
    // Every event comes twice at the same time.
    let sending = (0..400).map(|number| {
        let (sender, id) = (hook.sender.clone(), format!("a{}.deploys", number % 200));
        async move { sender.until_told(&id, &verdict(&id, "rollback")).await }
    });
    for said in join_all(sending).await {
        assert_eq!(said.outcome(), (200, "done"), "{said:?}");
    }
    let diary = stand.read("diary");
    let ids: BTreeSet<&str> = diary.lines().collect();
    assert_eq!((diary.lines().count(), ids.len()), (200, 200));
    assert_eq!(stand.read("overlap"), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_advance_never_overtakes_what_came_after_it() {
    let script = "echo $ROLLGATE_ACTION ${ROLLGATE_STEP:-} >> diary\n\
                  while [ -e wait ]; do sleep 0.02; done";
    let stand = Stand::with_script("", script);
    let hook = stand.start();
    let sender = &hook.sender;
    assert_eq!(sender.send("a.step2", &advance("a", 2)).await.outcome(), (200, "done"));
    let late = sender.send("a.step1", &advance("a", 1)).await;
    assert!(late.outcome() == (410, "refused") && late.because("step 2 of this"), "{late:?}");

    // While another command runs, an advance waits; the rollback that comes then is before it.
    stand.write("wait", "");
    let slow = tokio::spawn({
        let sender = sender.clone();
        async move { sender.send("slow", &verdict("other", "promote")).await }
    });
    stand.until_runs(2).await;
    let waiting = async |id: &'static str, event| {
        let sender = sender.clone();
        let sent = tokio::spawn(async move { sender.send(id, &event).await });
        let held = || stand.read("hook.memory").contains(&format!("\"id\":\"{id}\""));
        super::stand::eventually("it is taken", async || held().then_some(())).await;
        sent
    };
    let step = waiting("b.step1", advance("b", 1)).await;
    let back = waiting("b", verdict("b", "rollback")).await;
    std::fs::remove_file(stand.path("wait")).unwrap();
    assert_eq!(slow.await.unwrap().outcome(), (200, "done"));
    let step = step.await.unwrap();
    assert!(step.outcome() == (410, "refused") && step.because("a final verdict"), "{step:?}");
    assert_eq!(back.await.unwrap().outcome(), (200, "done"));
    let later = sender.send("b.step2", &advance("b", 2)).await;
    assert!(later.outcome() == (410, "refused") && later.because("a final verdict"), "{later:?}");
    assert_eq!(stand.read("diary"), "advance 2\npromote\nrollback\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_world_is_not_written_to() {
    let stand =
        Stand::with_script("check: [cat, version]\n", "echo ran >> diary; echo v1 > version");
    let hook = stand.start();
    let check = async |id: &str, action: &str, version: &str, expected: (u16, &str, &str)| {
        stand.write("version", version);
        let said = hook.sender.send(id, &verdict(id, action)).await;
        let (status, outcome, words) = expected;
        assert_eq!(said.outcome(), (status, outcome), "{id}: {said:?}");
        assert!(words.is_empty() || said.because(words), "{id}: {said:?}");
    };
    check("changed", "rollback", "v3\n", (410, "refused", "v3 runs now; v2 was judged")).await;
    check("empty", "rollback", "\n", (410, "refused", "nothing runs now")).await;
    check("by hand", "rollback", " v1 \n", (200, "nothing", "v1 runs already")).await;
    check("promoted", "promote", "v1\n", (410, "refused", "v1 runs now; v2 was judged")).await;
    std::fs::remove_file(stand.path("version")).unwrap();
    let said = hook.sender.send("gone", &verdict("gone", "rollback")).await;
    assert_eq!(said.outcome(), (500, "failed"), "{said:?}");
    assert!(said.because("the check ended with exit code 1"), "{said:?}");
    assert_eq!(stand.runs(), 0);
    check("good", "rollback", "v2\n", (200, "done", "")).await;
    // A refusal is no memory: when the world is again what was judged, a re-send is carried out.
    check("changed", "rollback", "v2\n", (200, "done", "")).await;
    assert_eq!(stand.runs(), 2);
    let mut event = verdict("unnamed", "rollback");
    event["data"]["canary_version"] = "".into();
    let said = hook.sender.send("unnamed", &event).await;
    assert!(said.outcome() == (410, "refused") && said.because("names no version"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_that_failed_half_way_is_gone_on_with() {
    // The first run brings the old version back and fails at the restart.
    let script = "echo ran >> diary; echo v1 > version; [ -e second ] || { touch second; exit 1; }";
    let stand = Stand::with_script("check: [cat, version]\n", script);
    stand.write("version", "v2\n");
    let hook = stand.start();
    let event = verdict("a", "rollback");
    assert_eq!(hook.sender.send("a", &event).await.outcome(), (500, "failed"));
    assert_eq!(hook.sender.send("a", &event).await.outcome(), (200, "done"));
    assert_eq!(stand.runs(), 2);
}
