//! The examples under `rules/deploy/` as they stand, in a world of stand-ins: programs of the same
//! name that keep their state in files and write every call down. Git is the real one.

use std::process::Command;

use serde_json::Value;

use super::stand::{Running, Stand, eventually, executable, kill, verdict};

/// Writes the call down; then a `case` over its words.
fn stand_in(stand: &Stand, name: &str, script: &str) {
    stand.script(
        &format!("bin/{name}"),
        &format!("echo \"{name} $*\" >> \"$HOME/calls\"\n{script}"),
    );
}

/// A rollback of a service from one version to another.
pub fn rollback(service: &str, new: &str, old: &str) -> Value {
    let mut event = verdict("a1", "rollback");
    event["data"]["service"] = service.into();
    event["data"]["canary_version"] = new.into();
    event["data"]["baseline_version"] = old.into();
    event
}

/// Calls that change something.
fn calls(stand: &Stand, of: &[&str]) -> Vec<String> {
    let calls = stand.read("calls");
    let wanted = |line: &&str| of.iter().any(|call| line.starts_with(call));
    calls.lines().filter(wanted).map(str::to_owned).collect()
}

fn good_at_rest(stand: &Stand) {
    let output = stand.run(&["--check"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("rollback.sh") && text.contains("running-version.sh"), "{text}");
}

/// Docker with the images v1 (previous) and v2 (current, running).
fn compose() -> Stand {
    let stand = Stand::of_example("compose");
    for (image, version) in [("current", "v2"), ("previous", "v1"), ("container", "v2")] {
        stand.write(&format!("docker/{image}"), version);
    }
    stand_in(
        &stand,
        "docker",
        "cd \"$HOME/docker\"; case \"$*\" in\n\
         'compose ps --quiet app') [ ! -e container ] || echo c0ffee ;;\n\
         'inspect --format '*' c0ffee') cat container ;;\n\
         'image inspect --format '*' pg-neo-graph-rl:current') cat current ;;\n\
         'image inspect --format '*' pg-neo-graph-rl:previous') cat previous ;;\n\
         'compose down') rm -f container ;;\n\
         'tag pg-neo-graph-rl:previous pg-neo-graph-rl:current') cp previous current ;;\n\
         'compose up -d') [ ! -e broken ] || { echo no space left >&2; exit 1; }; cp current container ;;\n\
         *) echo \"unknown: $*\" >&2; exit 64 ;;\n esac",
    );
    stand_in(&stand, "curl", "[ \"$(cat \"$HOME/docker/container\")\" = v1 ]");
    stand
}

const COMPOSE_CALLS: [&str; 3] = ["docker compose down", "docker tag", "docker compose up"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compose_brings_the_previous_image_back() {
    let stand = compose();
    good_at_rest(&stand);
    let hook = stand.start();
    let event = rollback("pg-neo-graph-rl", "v2", "v1");
    // The first attempt fails half way: nothing runs then, and the next one goes on.
    stand.write("docker/broken", "");
    let said = hook.sender.send("a1.host", &event).await;
    assert_eq!(said.outcome(), (500, "failed"), "{said:?}");
    assert!(!stand.path("docker/container").exists());
    std::fs::remove_file(stand.path("docker/broken")).unwrap();
    let said = hook.sender.send("a1.host", &event).await;
    assert_eq!(said.outcome(), (200, "done"), "{said:?}");
    assert_eq!(stand.read("docker/container"), "v1");
    let once = [
        "docker compose down",
        "docker tag pg-neo-graph-rl:previous pg-neo-graph-rl:current",
        "docker compose up -d",
    ];
    assert_eq!(calls(&stand, &COMPOSE_CALLS), [once, once].concat());
    assert!(stand.read("calls").ends_with("localhost:8000/health\n"), "{}", stand.read("calls"));
    // The next release is rolled back by an event that comes when somebody has done so by hand.
    let said = hook.sender.send("a2.host", &event).await;
    assert!(said.outcome() == (200, "nothing") && said.because("v1 runs already"), "{said:?}");
    assert_eq!(calls(&stand, &COMPOSE_CALLS).len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compose_refuses_a_world_that_it_does_not_know() {
    let stand = compose();
    let hook = stand.start();
    let said = hook.sender.send("other", &rollback("pg-neo-graph-rl", "v3", "v1")).await;
    assert!(said.outcome() == (410, "refused") && said.because("v2 runs now; v3"), "{said:?}");
    let said = hook.sender.send("image", &rollback("pg-neo-graph-rl", "v2", "v0")).await;
    assert_eq!(said.outcome(), (410, "refused"), "{said:?}");
    assert!(said.body["output"].as_str().unwrap().contains("v0 is to come back"), "{said:?}");
    let said = hook.sender.send("unnamed", &rollback("pg-neo-graph-rl", "v2", "")).await;
    assert_eq!(said.outcome(), (500, "failed"), "{said:?}");
    assert!(said.body["output"].as_str().unwrap().contains("names no old version"), "{said:?}");
    let mut promote = rollback("pg-neo-graph-rl", "v2", "v1");
    promote["data"]["action"] = "promote".into();
    assert_eq!(hook.sender.send("promote", &promote).await.outcome(), (200, "nothing"));
    assert!(calls(&stand, &COMPOSE_CALLS).is_empty());
    assert_eq!(stand.read("docker/container"), "v2");
}

/// A checkout with two commits, the old one tagged, and a unit that runs what was checked out when
/// it was last started. Gives both commits.
pub fn systemd_git(stand: &Stand) -> (String, String) {
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(stand.path("app")).args(["-c", "user.name=t", "-c", "user.email=t@t"]);
        let output = git.args(args).env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    stand.write("app/server.js", "old\n");
    stand.write("app/package.json", "{}\n");
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "old"]);
    git(&["tag", "stable"]);
    let old = git(&["rev-parse", "HEAD"]);
    stand.write("app/server.js", "new\n");
    git(&["commit", "--quiet", "-a", "-m", "new"]);
    let new = git(&["rev-parse", "HEAD"]);
    stand.write("running", "new\n");
    stand_in(stand, "npm", "[ \"$PWD\" = \"$HOME/app\" ]");
    stand.script("bin/sudo", "exec \"$@\"");
    stand_in(
        stand,
        "systemctl",
        "[ \"$*\" = 'restart deia-bot-controller' ]\n\
         while [ -e \"$HOME/stuck\" ]; do sleep 0.02; done\ncp \"$HOME/app/server.js\" \"$HOME/running\"",
    );
    stand_in(stand, "curl", "grep -q old \"$HOME/running\"");
    (new, old)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_and_git_go_back_to_the_commit_before() {
    let stand = Stand::of_example("systemd-git");
    let (new, old) = systemd_git(&stand);
    good_at_rest(&stand);
    let hook = stand.start();
    let service = "deia-bot-controller";
    let said = hook.sender.send("moved", &rollback(service, &old, "stable")).await;
    assert!(said.outcome() == (410, "refused") && said.because(&new), "{said:?}");
    let said = hook.sender.send("nowhere", &rollback(service, &new, "f25daf9")).await;
    assert_eq!(said.outcome(), (410, "refused"), "{said:?}");
    assert_eq!((stand.read("running"), stand.read("calls")), ("new\n".to_owned(), String::new()));

    // Versions as people write them: a short hash and a tag.
    let said = hook.sender.send("a1.host", &rollback(service, &new[..8], "stable")).await;
    assert_eq!(said.outcome(), (200, "done"), "{said:?}");
    assert_eq!(
        (stand.read("running"), stand.read("app/server.js")),
        ("old\n".into(), "old\n".into())
    );
    let expected = "npm install --production\nsystemctl restart deia-bot-controller\ncurl ";
    assert!(stand.read("calls").starts_with(expected), "{}", stand.read("calls"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_whose_hook_was_killed_is_brought_to_its_end() {
    let stand = Stand::of_example("systemd-git");
    let (new, _) = systemd_git(&stand);
    stand.write("stuck", "");
    let mut hook = stand.start();
    let event = rollback("deia-bot-controller", &new, "stable");
    let sending = tokio::spawn({
        let (sender, event) = (hook.sender.clone(), event.clone());
        async move { sender.send("a1.host", &event).await }
    });
    let restarts = || stand.read("calls").contains("systemctl");
    eventually("the restart", async || restarts().then_some(())).await;
    hook.kill();
    assert!(sending.await.is_err(), "it was answered");
    // Half done: the old commit is checked out, the new one runs.
    assert_eq!(
        (stand.read("running"), stand.read("app/server.js")),
        ("new\n".into(), "old\n".into())
    );
    let hook = stand.start();
    assert_eq!(hook.sender.send("a1.host", &event).await.outcome(), (503, "later"));
    let script = stand.read("hook.memory");
    let pid = script.rsplit("\"pid\":").next().unwrap().split(',').next().unwrap();
    // The host takes the rest of it down as well.
    kill("KILL", &format!("-{pid}"));
    std::fs::remove_file(stand.path("stuck")).unwrap();
    let said = hook.sender.until_told("a1.host", &event).await;
    assert_eq!(said.outcome(), (200, "done"), "{said:?}");
    assert_eq!(stand.read("running"), "old\n");
}

/// A cluster in which green (v1.2.3) has the traffic, and the platform's script, which toggles.
pub fn blue_green(stand: &mut Stand) {
    stand.write("cluster/active", "green\n");
    stand.write("cluster/blue", "registry/auth-service:v1.2.2");
    stand.write("cluster/green", "registry/auth-service:v1.2.3");
    stand_in(
        stand,
        "kubectl",
        "cd \"$HOME/cluster\"; case \"$*\" in\n\
         'get namespace -l active=true '*) sed 's/^/adaptive-learning-/' active | paste -sd' ' ;;\n\
         'get deployment auth-service -n adaptive-learning-blue '*) cat blue ;;\n\
         'get deployment auth-service -n adaptive-learning-green '*) cat green ;;\n\
         *) echo \"unknown: $*\" >&2; exit 64 ;;\n esac",
    );
    let script = "project/infrastructure/production/scripts/deploy-production.sh";
    stand.script(
        script,
        "[ \"$*\" = rollback ]; echo \"script $*\" >> \"$HOME/calls\"\n\
         case $(cat \"$HOME/cluster/active\") in blue) to=green ;; green) to=blue ;; esac\n\
         echo \"$to\" > \"$HOME/cluster/active\"\n[ ! -e \"$HOME/broken\" ] || exit 1",
    );
    executable(&stand.path(script));
    let project = stand.path("project").display().to_string();
    stand.set("PROJECT_DIR", &project);
}

fn started(stand: &Stand) -> Running {
    good_at_rest(stand);
    stand.start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_toggles_is_run_once() {
    let mut stand = Stand::of_example("blue-green-script");
    blue_green(&mut stand);
    let hook = started(&stand);
    let event = rollback("adaptive-learning-platform", "v1.2.3", "v1.2.2");
    // It switches and then fails; running it again would go forward.
    stand.write("broken", "");
    let said = hook.sender.send("a1.script", &event).await;
    assert_eq!(said.outcome(), (500, "failed"), "{said:?}");
    assert_eq!(stand.read("cluster/active"), "blue\n");
    let said = hook.sender.send("a1.script", &event).await;
    assert_eq!(said.outcome(), (200, "done"), "{said:?}");
    assert_eq!(stand.read("cluster/active"), "blue\n");
    assert_eq!(calls(&stand, &["script"]), ["script rollback"]);

    // In the middle of a switch nothing is known.
    stand.write("cluster/active", "blue\ngreen\n");
    let said = hook.sender.send("a2.script", &event).await;
    assert!(said.status == 503 && said.because("check ended with exit code 75"), "{said:?}");
    stand.write("cluster/active", "green\n");
    let said = hook
        .sender
        .send("a3.script", &rollback("adaptive-learning-platform", "v1.2.4", "v1.2.2"))
        .await;
    assert!(said.outcome() == (410, "refused") && said.because("v1.2.3 runs now"), "{said:?}");
    assert_eq!(calls(&stand, &["script"]), ["script rollback"]);
}

#[test]
fn the_examples_are_good_where_they_lie() {
    let rules = [
        ("compose", "pg-neo-graph-rl"),
        ("systemd-git", "deia-bot-controller"),
        ("blue-green-script", "adaptive-learning"),
    ];
    for (example, rules) in rules {
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/deploy").join(example);
        let key = |_: &str| Some(super::stand::KEY.to_owned());
        let path = folder.join("rollgate.yaml");
        let config = rollgate::config::read(&path, key).unwrap();
        assert!(config.rules.join(format!("{rules}.yaml")).is_file(), "{}", path.display());
        assert_eq!(config.mechanisms.len(), 1, "{}", path.display());
        let env = |name: &str| std::env::var(name).ok().or_else(|| key(name));
        rollgate::config::hook::read(
            &folder.join("hook.yaml"),
            env,
            rollgate::config::Secrets::Read,
        )
        .unwrap();
    }
}
