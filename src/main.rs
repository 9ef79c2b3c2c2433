//! The `prosampler` command.

fn main() -> std::process::ExitCode {
    prosampler::cli::main()
}
