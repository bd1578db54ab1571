//! `muster`, the program. All of it is in the library, so that tests run the same code.

fn main() -> std::process::ExitCode {
    muster::main()
}
