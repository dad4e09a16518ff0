//! What is remembered over restarts: ends, beginnings without an end, and commands that outlive the
//! hook that began them.

use super::stand::{Stand, eventually, verdict};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_event_is_known_after_a_restart_and_after_a_kill() {
    let stand = Stand::with_script("", "echo ran >> diary; echo $ROLLGATE_ID");
    let mut hook = stand.start();
    let event = verdict("a", "rollback");
    let first = hook.sender.send("a", &event).await;
    assert_eq!(first.outcome(), (200, "done"));
    assert!(hook.terminate().await.success());
    let mut hook = stand.start();
    assert_eq!(hook.sender.send("a", &event).await.body, first.body);
    hook.kill();
    let mut hook = stand.start();
    assert_eq!(hook.sender.send("a", &event).await.body, first.body);
    // A line that a crash cut off is none; the others hold.
    hook.kill();
    let memory = stand.read("hook.memory");
    stand.write("hook.memory", &format!("{memory}{{\"entry\":{{\"id\":\"b\""));
    let hook = stand.start();
    assert_eq!(hook.sender.send("a", &event).await.body, first.body);
    assert_eq!(hook.sender.send("b", &verdict("b", "rollback")).await.outcome(), (200, "done"));
    assert_eq!(stand.runs(), 2);
    // Two hooks would not know of each other.
    let second = stand.run(&[]);
    let text = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(2), "{text}");
    assert!(text.contains("is another hook running?"), "{text}");
}

/// Begins a command, kills the hook in the middle of it, and starts another.
async fn killed(members: &str) -> (Stand, super::stand::Running) {
    let script = "echo ran >> diary; while [ -e wait ]; do sleep 0.02; done; echo end >> ends";
    let stand = Stand::with_script(members, script);
    stand.write("wait", "");
    let mut hook = stand.start();
    let sender = hook.sender.clone();
    let sent = tokio::spawn(async move {
        let event = verdict("a", "rollback");
        // The connection dies with the hook.
        std::panic::AssertUnwindSafe(sender.send("a", &event)).await;
    });
    stand.until_runs(1).await;
    let written = || stand.read("hook.memory").contains("\"process\":{\"id\"");
    eventually("the process is written down", async || written().then_some(())).await;
    hook.kill();
    assert!(sent.await.is_err(), "it was answered");
    let hook = stand.start();
    (stand, hook)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_kill_cut_off_is_not_run_again_in_silence() {
    let (stand, hook) = killed("").await;
    let event = verdict("a", "rollback");
    // The command outlived its hook; nothing else runs beside it.
    let said = hook.sender.send("a", &event).await;
    assert!(said.outcome() == (503, "later") && said.because("still runs"), "{said:?}");
    let other = tokio::spawn({
        let sender = hook.sender.clone();
        async move { sender.until_told("b", &verdict("b", "rollback")).await }
    });
    std::fs::remove_file(stand.path("wait")).unwrap();
    assert_eq!(other.await.unwrap().outcome(), (200, "done"));
    assert_eq!((stand.runs(), stand.read("ends").lines().count()), (2, 2));
    let said = hook.sender.until_told("a", &event).await;
    assert!(said.outcome() == (410, "refused") && said.because("may be half done"), "{said:?}");
    assert_eq!(stand.runs(), 2);
    // Somebody looked, and sends it again.
    assert_eq!(hook.sender.send("a", &event).await.outcome(), (200, "done"));
    assert_eq!(stand.runs(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_kill_cut_off_is_run_again_where_it_may_be() {
    let (stand, hook) = killed("interrupted: run\n").await;
    std::fs::remove_file(stand.path("wait")).unwrap();
    let said = hook.sender.until_told("a", &verdict("a", "rollback")).await;
    assert_eq!(said.outcome(), (200, "done"), "{said:?}");
    assert_eq!((stand.runs(), stand.read("ends").lines().count()), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_of_an_earlier_hook_is_ended_when_it_is_out_of_time() {
    let (stand, hook) = killed("interrupted: run\ntimeout: 1s\n").await;
    // It waits for ever; its time and the grace of five seconds have to pass.
    let said = hook.sender.until_told("b", &verdict("b", "hold")).await;
    assert_eq!(said.outcome(), (200, "nothing"));
    let told = tokio::spawn({
        let sender = hook.sender.clone();
        async move { sender.until_told("c", &verdict("c", "rollback")).await }
    });
    stand.until_runs(2).await;
    std::fs::remove_file(stand.path("wait")).unwrap();
    assert!([200, 500].contains(&told.await.unwrap().status));
    assert_eq!(stand.read("ends").lines().count() + 1, stand.runs(), "the first never ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_the_command_that_runs_and_begins_no_other() {
    let script = "echo ran >> diary; while [ -e wait ]; do sleep 0.02; done; echo end >> ends";
    let stand = Stand::with_script("wait: 1s\n", script);
    stand.write("wait", "");
    let mut hook = stand.start();
    for id in ["a", "b"] {
        assert_eq!(hook.sender.send(id, &verdict(id, "rollback")).await.status, 503);
    }
    let removed = async {
        eventually("the log says so", async || {
            stand.read("stderr.log").contains("waiting for a command").then_some(())
        })
        .await;
        std::fs::remove_file(stand.path("wait")).unwrap();
    };
    let (status, ()) = tokio::join!(hook.terminate(), removed);
    assert!(status.success());
    assert_eq!((stand.runs(), stand.read("ends").lines().count()), (1, 1));
    let hook = stand.start();
    assert_eq!(hook.sender.send("a", &verdict("a", "rollback")).await.outcome(), (200, "done"));
    assert_eq!(stand.runs(), 1, "its end was remembered");
    assert_eq!(hook.sender.send("b", &verdict("b", "rollback")).await.outcome(), (200, "done"));
    assert_eq!(stand.runs(), 2);
}
