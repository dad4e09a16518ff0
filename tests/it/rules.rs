//! Rule files from outside: those that ship with the product, and what people get wrong.

use std::{fs, path::PathBuf};

use rollgate::{cli::check, rulefile};

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_rule_files_that_ship_are_good() {
    for name in ["recommended.yaml", "adaptive-learning.yaml"] {
        let text = fs::read_to_string(repository("rules").join(name)).expect("the file is there");
        if let Err(faults) = rulefile::load(name, &text) {
            panic!("{}", faults.render(false));
        }
    }
}

#[test]
fn check_says_in_one_line_what_a_good_file_holds() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let files = [repository("rules/recommended.yaml")];
    let code = check::run(&files, &mut out, &mut err).expect("buffers can be written");
    let said = String::from_utf8(out).expect("the line is text");
    assert_eq!((code, err.len(), said.lines().count()), (check::GOOD, 0, 1), "{said}");
    assert!(said.contains("4 signals and 4 rules (4 rollback)"), "{said}");
}
