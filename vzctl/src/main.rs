//! One binary, many names: what it is called decides what it does.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let name = args
        .first()
        .map(Path::new)
        .and_then(Path::file_name)
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let code = match name.as_str() {
        "vzlist" => vzctl::list::main(args),
        "vzpkg" => vzctl::pkg::main(args),
        _ => {
            if let Some(first) = args.first_mut() {
                *first = "vzctl".into();
            }
            vzctl::command::main(args)
        }
    };
    ExitCode::from(code)
}
