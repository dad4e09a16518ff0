//! Shell completions: every shell's script knows every command, and bash's completes.

use std::process::Command;

fn script(shell: &str) -> String {
    let printed =
        Command::new(env!("CARGO_BIN_EXE_rollgate")).args(["completions", shell]).output().unwrap();
    assert!(printed.status.success() && printed.stderr.is_empty(), "{printed:?}");
    String::from_utf8(printed.stdout).unwrap()
}

/// The commands as `--help` lists them.
fn commands() -> Vec<String> {
    let help = Command::new(env!("CARGO_BIN_EXE_rollgate")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, list) = help.split_once("Commands:\n").expect("it lists commands");
    let lines = list.lines().take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn every_shell_knows_every_command() {
    let commands = commands();
    assert!(commands.len() >= 10 && commands.contains(&"check".to_owned()), "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = script(shell);
        for command in &commands {
            assert!(script.contains(command.as_str()), "{shell} does not know {command}");
        }
    }
}

#[test]
fn bash_completes_a_command_and_an_option() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rollgate.bash");
    std::fs::write(&file, script("bash")).unwrap();
    let complete = |words: &[&str]| {
        let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
        let line = format!(
            "source '{}'; COMP_WORDS=({}); COMP_CWORD={}; _rollgate rollgate '{last}' '{before}'; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            file.display(),
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words.len() - 1,
        );
        let done = Command::new("bash").args(["--norc", "-c", &line]).output().unwrap();
        String::from_utf8(done.stdout).unwrap()
    };
    assert_eq!(complete(&["rollgate", "chec"]), "check\n");
    assert!(complete(&["rollgate", "replay", "--rul"]).contains("--rules"));
}
