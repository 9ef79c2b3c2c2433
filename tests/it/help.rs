//! Completions and manual pages name all commands and options.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::support::assert_says;
use crate::support::command::{ends_with, prosampler, text};

#[test]
fn each_shell_gets_its_completions() {
    let dir = TempDir::new().unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = prosampler(dir.path(), &["completions", shell]);
        ends_with(&output, 0, &[]);
        assert_says(&text(&output.stdout), &["prosampler", "inspect", "doctor", "output", "clear"]);
    }
    ends_with(&prosampler(dir.path(), &["completions", "cmd"]), 2, &["bash", "zsh"]);
}

/// Bash itself completes the name of a command and of an option.
#[cfg(target_os = "linux")]
#[test]
fn bash_completes_commands_and_options() {
    let dir = TempDir::new().unwrap();
    let script = text(&prosampler(dir.path(), &["completions", "bash"]).stdout);
    fs::write(dir.path().join("prosampler.bash"), script).unwrap();
    let completed = |words: &str, last: usize| {
        let line = format!(
            "source prosampler.bash; COMP_WORDS=({words}); COMP_CWORD={last}; \
             _prosampler prosampler \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{last}-1]}}\"; echo \"${{COMPREPLY[@]}}\""
        );
        let Ok(output) = Command::new("bash").current_dir(dir.path()).args(["-c", &line]).output() else {
            println!("there is no bash here");
            return None;
        };
        Some(text(&output.stdout).trim().to_owned())
    };
    assert!(completed("prosampler ins", 1).is_none_or(|word| word == "inspect"));
    assert!(completed("prosampler run --outp", 2).is_none_or(|word| word == "--output"));
}

#[test]
fn each_command_has_a_manual_page() {
    let dir = TempDir::new().unwrap();
    ends_with(&prosampler(dir.path(), &["man", "share/man1"]), 0, &[]);
    let page = |name: &str| fs::read_to_string(dir.path().join("share/man1").join(name)).unwrap();
    assert_says(&page("prosampler.1"), &[".TH prosampler 1", "prosampler\\-run(1)", "Exit status:"]);
    assert_says(&page("prosampler-run.1"), &["\\-\\-output", "Examples:"]);
    assert_says(&page("prosampler-cache-clear.1"), &["\\-\\-embeddings"]);
    fs::write(dir.path().join("file"), "").unwrap();
    ends_with(&prosampler(dir.path(), &["man", "file"]), 8, &["manual pages in `file`"]);
}
