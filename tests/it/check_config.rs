//! `rollgate check` on configurations: what is refused and where, what is shown, what is warned of.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::{
    cli::check::{self, Format, Options},
    config::Secrets,
};
use serde_json::{Value, json};

/// A directory with a configuration, and the rule files that ship.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules = folder.path().join("rules");
        fs::create_dir(&rules).unwrap();
        let shipped = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("rules/recommended.yaml");
        fs::copy(shipped, rules.join("recommended.yaml")).unwrap();
        fs::write(folder.path().join("rollgate.yaml"), config).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The exit code, and what was said to both sides.
    fn check(&self, args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
        let run = Command::new(env!("CARGO_BIN_EXE_rollgate"))
            .arg("check")
            .args(args)
            .current_dir(self.0.path())
            .env_clear()
            .env("NO_COLOR", "1")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (run.status.code(), text(run.stdout), text(run.stderr))
    }
}

const KEY: (&str, &str) = ("KEY", "a-signing-key-of-some-length");

/// One mechanism of each kind of ours, as the README writes them.
const GOOD: &str = "\
mechanisms:
  deploy:
    webhook: { url: 'https://deploy.example.org/hooks/rollgate', secrets: [{ env: KEY }] }
  jenkins:
    on: { promote: nothing, advance: nothing, hold: nothing }
    webhook:
      url: https://jenkins.example.org/job/rollback/buildWithParameters
      sign: false
      headers: { authorization: { env: KEY } }
      content_type: application/x-www-form-urlencoded
      body: SERVICE={{ data.service }}&VERSION={{ data.baseline_version }}
  broker: { cloudevents: { url: 'https://broker.example.org/', mode: structured } }
  ci: { github: { repository: acme/shop, token: { env: KEY }, environment: production } }
  workflow:
    github: { repository: acme/shop, token: { env: KEY }, workflow: back.yml, ref: main,
              environment: production }
  pipes: { gitlab: { project: group/shop, ref: main, token: { env: KEY }, environment: prod } }
  pager: { alertmanager: { url: 'http://127.0.0.1:9093', lasts: 2h, labels: { team: shop } } }
  chat: { slack: { url: { file: chat_url } } }
";

const CHAT_URL: &str = "https://hooks.slack.com/services/T0/B0/a-secret-of-some-length\n";

#[test]
fn a_good_configuration_is_drawn() {
    let folder = Folder::new(GOOD);
    folder.write("chat_url", CHAT_URL, 0o640);
    let (code, out, err) = folder.check(&["rollgate.yaml"], &[KEY]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    for line in [
        "rollgate.yaml  good: a configuration",
        "  listens on  127.0.0.1:8750",
        "  rules       rules: 1 rule file",
        "rollback  dispatch rollgate-rollback to",
        "hold      fire an alert (warning)",
        "https://hooks.slack.com",
        "checks the newest deployment of",
        "hold      nothing",
    ] {
        assert!(out.contains(line), "{out}\nlacks {line}");
    }
    let wide: Vec<&str> = out.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(wide.is_empty() && !out.contains("a-secret-of"), "{wide:#?}");
    let (code, out, _) = folder.check(&["-q", "--deny", "warnings", "."], &[KEY]);
    assert_eq!((code, out.lines().count()), (Some(0), 1), "{out}");
    assert!(out.contains("good: a configuration that listens on 127.0.0.1:8750, 1 of 1 rule file"));
}

#[test]
fn machines_are_told_what_happens_on_each_decision() {
    let folder = Folder::new(GOOD);
    let (code, out, err) =
        folder.check(&["--no-secrets", "--format", "json", "rollgate.yaml"], &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let checked: Value = serde_json::from_str(&out).unwrap();
    let configuration = &checked["files"][0]["configuration"];
    assert_eq!(configuration["rule_files"], 1);
    let mechanisms = configuration["mechanisms"].as_array().unwrap();
    let named = |name: &str| mechanisms.iter().find(|found| found["name"] == name).unwrap();
    assert_eq!(
        named("ci"),
        &json!({ "name": "ci", "kind": "github", "to": "https://api.github.com",
            "checked_by": "itself", "checks": "the newest deployment of production",
            "on": { "rollback": "dispatch rollgate-rollback to acme/shop",
                "promote": "dispatch rollgate-promote to acme/shop",
                "advance": "dispatch rollgate-advance to acme/shop", "hold": null } })
    );
    assert_eq!(named("chat")["checked_by"], "people");
    assert_eq!(named("chat")["to"], "https://not-read.invalid");
    assert_eq!(named("jenkins")["on"]["promote"], Value::Null);
    assert_eq!(mechanisms.len(), 8);
}

#[test]
fn every_fault_is_told_with_its_place_at_once() {
    let folder = Folder::new(
        "timeout: 1h\nmechanisms:\n  a:\n    webhook: { url: 'ftp://x', secrets: [{ env: KEY }] }\n  \
         b:\n    github:\n      repository: acme\n      token: { env: NOPE }\n      event_type: \
         '{actoin}'\n    on: { rollback: undo }\n  c: { on: {} }\n  d: { alertmanager: { url: \
         'http://h', lasts: 1s } }\n  e: { webhook: { url: 'http://127.0.0.1/', sign: false, body: \
         '{{ data.servce }}' } }\n  f: { gitlab: { project: p, ref: main } }\n  g: { github: { \
         repository: a/b, token: { env: KEY }, workflow: w.yml, event_type: x } }\n",
    );
    let (code, out, err) = folder.check(&["rollgate.yaml"], &[KEY]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    for said in [
        "error: timeout is \"1h\"",
        "rollgate.yaml:1:1",
        "mechanisms.a: webhook a: the url begins with ftp:",
        "environment variable NOPE is not set",
        "rollgate.yaml:8:7",
        "{actoin} is not known",
        "mechanisms.b.on.rollback is \"undo\"",
        "expected: dispatch or nothing",
        "mechanisms.c says no kind",
        "mechanisms.d.alertmanager.lasts is \"1s\"",
        "mechanisms.e: webhook e: the body fails on rollback: undefined value",
        "mechanisms.f.gitlab has no token",
        "mechanisms.g.github says both event_type and workflow",
        "mechanisms.g.github.ref is not set",
        "rollgate.yaml: 11 faults",
    ] {
        assert!(err.contains(said), "{err}\nlacks {said}");
    }
    let (_, out, _) = folder.check(&["--format", "github", "rollgate.yaml"], &[KEY]);
    assert_eq!(out.lines().count(), 11, "{out}");
    assert!(out.starts_with("::error file=rollgate.yaml,line=1,"), "{out}");
}

#[test]
fn what_is_no_configuration_is_told_what_it_may_be() {
    let check = |config: &str, expected: &[&str]| {
        let folder = Folder::new(config);
        let (code, _, err) = folder.check(&["rollgate.yaml"], &[KEY]);
        assert_eq!(code, Some(2), "{err}");
        for said in expected {
            assert!(err.contains(said), "{err}\nlacks {said}");
        }
        assert!(!err.contains("a-secret"), "{err}");
    };
    check(
        "mechanisms:\n  chat:\n    slak: { url: 'https://h/a-secret' }\n",
        &[
            "`slak` is no kind of mechanism",
            "rollgate.yaml:3:5",
            "`on` or one of webhook, cloudevents, ",
            "did you mean `slack`?",
        ],
    );
    check(
        "mechanisms:\n  chat:\n    slack: { url: 'https://h/a-secret' }\n    webhook: { url: x }\n",
        &["says two kinds, `slack` and `webhook`", "an entry of its own"],
    );
    check("lisen: 127.0.0.1:1\n", &["unknown field `lisen`", "rollgate.yaml:1:1"]);
    check("mechanisms: { c: { slack: { url: { evn: X } } } }\n", &["unknown field `evn`"]);
    check("mechanisms: { c: { slack: { url: [x] } } }\n", &["rollgate.yaml:1:"]);
    check("mechanisms: { c: { slack: {} } }\n", &["missing field `url`"]);
    check("[1, 2]\n", &["rollgate.yaml:1:1"]);
}

#[test]
fn what_should_not_stay_is_warned_of() {
    let folder = Folder::new(
        "prometheus: { main: { url: 'http://prometheus:9090', headers: { authorization: { env: KEY } } } }\n\
         mechanisms:\n  chat: { slack: { url: { file: chat_url } } }\n  \
         ci: { github: { repository: acme/shop, token: { env: KEY } } }\n  \
         far: { webhook: { url: 'http://h/', secrets: [{ env: KEY }] } }\n  \
         mute: { on: { rollback: nothing, hold: nothing }, alertmanager: { url: 'http://h/' } }\n",
    );
    folder.write("chat_url", CHAT_URL, 0o644);
    folder.write("rules/broken.yaml", "version: 2\n", 0o644);
    let (code, _, err) = folder.check(&["rollgate.yaml"], &[KEY]);
    assert_eq!(code, Some(0), "{err}");
    for said in [
        "warning[token-over-http]: prometheus main sends a token",
        "warning[token-over-http]: mechanism far sends a token",
        "warning[unchecked-revision]: mechanism ci compares nothing",
        "warning[does-nothing]: mechanism mute does nothing",
        "warning[readable-secret]: everybody on this machine may read",
        "warning[rule-files-missing]: 1 rule file does not load: broken.yaml",
        "rollgate.yaml: 6 warnings",
    ] {
        assert!(err.contains(said), "{err}\nlacks {said}");
    }
    assert!(!err.contains("a-secret-of"), "{err}");
    let (code, _, _) = folder.check(&["--deny", "warnings", "rollgate.yaml"], &[KEY]);
    assert_eq!(code, Some(2));
    let (_, out, _) = folder.check(&["--format", "sarif", "rollgate.yaml"], &[KEY]);
    let log: Value = serde_json::from_str(&out).unwrap();
    let results = log["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), 6, "{out}");
    let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
    for result in results {
        let index = result["ruleIndex"].as_u64().unwrap() as usize;
        assert_eq!(rules[index]["id"], result["ruleId"]);
    }
}

/// A secret that is not there names its variable, and is no fault where secrets are not read.
#[test]
fn secrets_need_not_be_at_hand() {
    let folder = Folder::new(GOOD);
    let (code, _, err) = folder.check(&["rollgate.yaml"], &[]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("environment variable KEY is not set"), "{err}");
    assert!(err.contains("chat_url cannot be read"), "{err}");
    let (code, out, err) = folder.check(&["--no-secrets", "rollgate.yaml"], &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let broken = Folder::new(&GOOD.replace("repository: acme/shop", "repository: shop"));
    let (code, _, err) = broken.check(&["--no-secrets", "rollgate.yaml"], &[]);
    assert_eq!(code, Some(2));
    assert!(
        err.contains("repository is \"shop\", expected owner/name") || err.contains("owner/name")
    );
}

/// What `README.md` shows of each kind is good.
#[test]
fn the_page_shows_mechanisms_that_are_good() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, shown) = page.split_once("# rollgate.yaml: one of each kind over HTTP\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    let folder = Folder::new(shown);
    let args = ["--no-secrets", "--deny", "warnings", "--format", "json", "rollgate.yaml"];
    let (code, out, err) = folder.check(&args, &[]);
    assert_eq!(code, Some(0), "{out}{err}");
    let checked: Value = serde_json::from_str(&out).unwrap();
    let mechanisms = checked["files"][0]["configuration"]["mechanisms"].as_array().unwrap();
    let mut kinds: Vec<&str> =
        mechanisms.iter().map(|mechanism| mechanism["kind"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, ["alertmanager", "cloudevents", "github", "gitlab", "slack", "webhook"]);
}

/// What a configuration is told, without the command around it.
fn told(folder: &Folder) -> (u8, String) {
    let options = Options { format: Format::Json, secrets: Secrets::StandIn, ..Options::default() };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let path = folder.0.path().join("rollgate.yaml");
    let code = check::check(&[path], &options, &mut out, &mut err).unwrap();
    (code, String::from_utf8(out).unwrap())
}

#[test]
fn limits_are_named() {
    let check = |config: &str, expected: &str| {
        let (code, said) = told(&Folder::new(config));
        match expected {
            "" => assert_eq!(code, check::GOOD, "{said}"),
            expected => assert!(code == check::FAULTY && said.contains(expected), "{said}"),
        }
    };
    let entry = |n: usize| format!("  m{n}: {{ slack: {{ url: 'https://h/' }} }}\n");
    let many = |n: usize| (0..n).map(entry).collect::<String>();
    check(&format!("mechanisms:\n{}", many(100)), "");
    check(&format!("mechanisms:\n{}", many(101)), "mechanisms has 101 entries");
    let names = |n: usize| (0..n).map(|n| format!("k{n}: v")).collect::<Vec<_>>().join(", ");
    let github = |n: usize| {
        let inputs = names(n);
        format!(
            "mechanisms: {{ c: {{ github: {{ repository: a/b, token: {{ env: T }}, workflow: w, \
             ref: main, inputs: {{ {inputs} }} }} }} }}\n"
        )
    };
    check(&github(25), "");
    check(&github(26), "mechanisms.c.github.inputs has 26 entries");
    let gitlab = |n: usize| {
        let variables = names(n);
        format!(
            "mechanisms: {{ c: {{ gitlab: {{ project: p, token: {{ env: T }}, ref: main, \
             variables: {{ {variables} }} }} }} }}\n"
        )
    };
    check(&gitlab(50), "");
    check(&gitlab(51), "mechanisms.c.gitlab.variables has 51 entries");
    let pager = |n: usize| {
        let labels = names(n);
        format!(
            "mechanisms: {{ c: {{ alertmanager: {{ url: 'http://127.0.0.1', labels: {{ {labels} \
             }} }} }} }}\n"
        )
    };
    check(&pager(20), "");
    check(&pager(21), "mechanisms.c.alertmanager.labels has 21 entries");
    check(&format!("# {}\n", "x".repeat(300_000)), "larger than 256 KiB");
}

/// Whatever is written, it is told and nothing panics.
#[test]
fn damaged_configurations_are_told_what_is_wrong() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let scraps =
        ["{{", "}", "[", ": ", "\n  ", "'", "\"", "&a ", "*a", "!!x ", "\u{1f}", "ü", "{x}"];
    for _ in 0..300 {
        let mut text = GOOD.to_owned();
        for _ in 0..random.random_range(1..4) {
            let mut places = text.char_indices().map(|(at, _)| at);
            let at = places.nth(random.random_range(0..text.chars().count())).unwrap();
            match random.random_range(0..3) {
                0 => text.truncate(at.max(1)),
                1 => text.insert_str(at, scraps[random.random_range(0..scraps.len())]),
                _ => drop(text.remove(at)),
            }
        }
        let (code, said) = told(&Folder::new(&text));
        let checked: Value = serde_json::from_str(&said).unwrap();
        let is_good = checked["good"].as_bool().unwrap();
        assert_eq!(code == check::GOOD, is_good, "{text}\n{said}");
        assert!(is_good || checked["faults"].as_u64() > Some(0), "{text}\n{said}");
    }
}
