//! The program that stays with each running container: see `vzrt::monitor`.

fn main() -> std::process::ExitCode {
    vzrt::monitor::main()
}
