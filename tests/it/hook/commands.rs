//! Commands that fail, take long, say much, or do not want to end.

use std::{path::Path, time::Duration};

use super::stand::{Stand, eventually, verdict};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_told_and_tried_so_many_times() {
    let stand = Stand::with_script("", "echo ran >> diary; echo no >&2; exit $(cat code)");
    let hook = stand.start();
    let event = verdict("a", "rollback");
    stand.write("code", "3");
    for attempt in 1..=3 {
        let said = hook.sender.send("a", &event).await;
        let expected = if attempt < 3 { (500, "failed") } else { (410, "refused") };
        assert_eq!(said.outcome(), expected, "{said:?}");
        assert!(said.because("the command ended with exit code 3"), "{said:?}");
        assert_eq!((&said.body["exit_code"], &said.body["output"]), (&3.into(), &"no".into()));
    }
    // Who sends it again by hand has all tries again.
    assert_eq!(hook.sender.send("a", &event).await.outcome(), (500, "failed"));
    stand.write("code", "75");
    for _ in 0..4 {
        let said = hook.sender.send("a", &event).await;
        assert_eq!(said.outcome(), (503, "later"), "{said:?}");
        assert_eq!(said.retry_after.as_deref(), Some("5"));
    }
    stand.write("code", "78");
    assert_eq!(hook.sender.send("a", &event).await.outcome(), (410, "refused"));
    stand.write("code", "0");
    assert_eq!(hook.sender.send("a", &event).await.outcome(), (200, "done"));
    assert_eq!(stand.runs(), 10);
    assert_eq!(hook.sender.send("a", &event).await.outcome(), (200, "done"));
    assert_eq!(stand.runs(), 10);
    let log = stand.read("stderr.log");
    assert!(log.contains("said") && log.contains("line=\"no\""), "{log}");

    stand.script("act.sh", "kill -KILL $$");
    let said = hook.sender.send("b", &verdict("b", "rollback")).await;
    assert!(said.outcome() == (500, "failed") && said.because("signal 9"), "{said:?}");
    std::fs::remove_file(stand.path("act.sh")).unwrap();
    let said = hook.sender.send("b", &verdict("b", "rollback")).await;
    assert!(said.outcome() == (500, "failed") && said.because("cannot be run"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_slow_command_is_told_to_the_next_attempt() {
    let script = "echo ran >> diary; while [ -e wait ]; do sleep 0.02; done; exit $(cat code)";
    let stand = Stand::with_script("wait: 1s\n", script);
    let hook = stand.start();
    for (id, code, expected) in [
        ("good", "0", (200, "done")),
        ("bad", "4", (500, "failed")),
        ("never", "78", (410, "refused")),
    ] {
        let before = stand.runs();
        stand.write("code", code);
        stand.write("wait", "");
        let event = verdict(id, "rollback");
        let first = hook.sender.send(id, &event).await;
        assert!(
            first.outcome() == (503, "later") && first.because("no end after 1 s"),
            "{first:?}"
        );
        std::fs::remove_file(stand.path("wait")).unwrap();
        // Its end comes while nobody waits for it.
        let ended =
            || stand.read("hook.memory").contains(&format!("{{\"ended\":{{\"id\":\"{id}\""));
        eventually("its end", async || ended().then_some(())).await;
        assert_eq!(hook.sender.send(id, &event).await.outcome(), expected);
        assert_eq!(stand.runs(), before + 1, "it ran once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_of_output_are_not_kept() {
    let script = "head -c 100000000 /dev/zero | tr '\\0' 'a'; \
                  head -c 1000000 /dev/zero | tr '\\0' 'b' >&2; echo the end";
    let stand = Stand::with_script("", script);
    let hook = stand.start();
    let said = hook.sender.until_told("a", &verdict("a", "rollback")).await;
    assert_eq!(said.outcome(), (200, "done"), "{said:?}");
    let output = said.body["output"].as_str().unwrap();
    assert!(output.len() <= 1000 && output.contains("the end"), "{output}");
    assert!(hook.peak_mib() < 64, "{} MiB", hook.peak_mib());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_out_of_time_goes_with_its_children_and_one_in_time_leaves_them() {
    // Deaf to SIGTERM, and so is its child, which holds the output open as well.
    let deaf = "trap '' TERM; echo $$ > parent; sh -c \"trap '' TERM; echo \\$\\$ > child; \
                while :; do sleep 0.1; done\" & while :; do sleep 0.1; done";
    let stand = Stand::with_script("timeout: 1s\ntries: 1\nwait: 30s\n", deaf);
    let hook = stand.start();
    let said = hook.sender.send("a", &verdict("a", "rollback")).await;
    assert_eq!(said.outcome(), (410, "refused"), "{said:?}");
    assert!(said.because("the command was ended after 1 s"), "{said:?}");
    let lives = |name: &str| Path::new("/proc").join(stand.read(name).trim()).join("cwd").exists();
    for name in ["parent", "child"] {
        assert!(!stand.read(name).trim().is_empty(), "{name} never began");
        let gone = async || (!lives(name)).then_some(());
        tokio::time::timeout(Duration::from_secs(5), eventually("it is gone", gone)).await.unwrap();
    }

    // What is left in the background on purpose lives on, and does not hold the answer up.
    stand.script("act.sh", "sleep 300 & echo $! > child");
    let said = hook.sender.send("b", &verdict("b", "rollback")).await;
    assert_eq!(said.outcome(), (200, "done"), "{said:?}");
    assert!(lives("child"), "the child is gone");
    let killed = std::process::Command::new("kill").arg(stand.read("child").trim()).status();
    assert!(killed.unwrap().success());
}
