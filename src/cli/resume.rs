//! What to type after a run that was ended early.

use std::ffi::OsString;
use std::path::Path;

/// Says how the run that these arguments started can be continued.
///
/// A run with a `state` file continues with the same command. One without has kept nothing, and is told what to add the
/// next time; a folder of checkpoints is part of that unless `has_checkpoints`. `output` is the file that the same
/// command would overwrite.
pub(super) fn advice(arguments: &[OsString], has_state: bool, has_checkpoints: bool, output: Option<&Path>) -> String {
    let command = arguments.iter().map(|argument| quoted(&argument.to_string_lossy())).collect::<Vec<_>>().join(" ");
    if !has_state {
        let dir = if has_checkpoints { "" } else { " --set checkpoint.dir=checkpoints" };
        return format!("this run cannot be continued; one that can is started by\n  {command} --state run.json{dir}");
    }
    let overwritten = output.map(|output| {
        format!(
            "\nname another --output, or the mini-batches in `{}` are replaced by those that follow",
            output.display()
        )
    });
    format!("to continue, type\n  {command}{}", overwritten.unwrap_or_default())
}

/// An argument as a POSIX shell reads it.
fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(texts: &[&str]) -> Vec<OsString> {
        texts.iter().map(OsString::from).collect()
    }

    #[test]
    fn a_command_is_what_a_shell_would_split_into_the_same_arguments() {
        let texts = ["prosampler", "run", "my file.toml", "--set", "source.filter=label = 'a'", "", "$HOME", "α"];
        let told = advice(&arguments(&texts), true, true, None);
        let command = told.strip_prefix("to continue, type\n  ").unwrap();
        let command = command.strip_prefix("prosampler").unwrap();
        let shell = std::process::Command::new("sh").args(["-c", &format!("printf '%s\\n' {command}")]).output();
        let split = String::from_utf8(shell.unwrap().stdout).unwrap();
        assert_eq!(split.lines().collect::<Vec<_>>(), texts[1..]);
    }

    #[test]
    fn a_run_without_a_state_is_told_what_to_add() {
        let run = arguments(&["prosampler", "run", "p.toml"]);
        let both = "prosampler run p.toml --state run.json --set checkpoint.dir=checkpoints";
        assert!(advice(&run, false, false, None).ends_with(both));
        assert!(advice(&run, false, true, None).ends_with("prosampler run p.toml --state run.json"));
    }

    #[test]
    fn the_file_that_the_same_command_overwrites_is_named() {
        let run = arguments(&["prosampler", "run", "p.toml", "--state", "s.json", "-o", "out.parquet"]);
        let told = advice(&run, true, true, Some(Path::new("out.parquet")));
        assert!(told.contains("run p.toml --state s.json -o out.parquet\n"), "{told}");
        assert!(told.contains("another --output") && told.contains("`out.parquet`"), "{told}");
    }
}
