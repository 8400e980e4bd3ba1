//! The `headhunt` binary: plugs the rooms together and nothing else.

fn main() -> std::process::ExitCode {
    headhunt::cli::main()
}
