//! The `prosampler` command.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(prosampler::cli::main(std::env::args_os().collect()))
}
