//! The `tagrelay` program: arguments in, exit code out.

fn main() -> std::process::ExitCode {
    tagrelay::cli::run()
}
