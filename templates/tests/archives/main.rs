//! Archives against the unpacker, as root and with real files. It has its own `main`: see [`support::run`].
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod compressed;
mod honest;
mod hostile;
mod images;
mod stores;
mod support;

fn main() -> std::process::ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|a| a == "--another") {
        return stores::be_another(&arguments[1..]);
    }
    support::run(&[hostile::TESTS, honest::TESTS, compressed::TESTS, images::TESTS, stores::TESTS].concat())
}
