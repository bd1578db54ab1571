//! The `muster` program under a name of the tests' own, so that Cargo builds it for them.

fn main() -> std::process::ExitCode {
    muster::main()
}
