//! One binary, many names: what it is called decides what it does.

mod manual;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Not the caller's: with 077 the users of a container could not enter its root, with 0 anyone could change what it has on the host.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let name = args
        .first()
        .map(Path::new)
        .and_then(Path::file_name)
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    if let Some(tool) = vzctl::tools::by_name(&name) {
        return ExitCode::from(tool.main(args));
    }
    let code = match name.as_str() {
        "vzlist" => vzctl::list::main(args),
        "vzubc" => vzctl::ubc::main(args),
        "vzpkg" => vzctl::pkg::main(args),
        _ => {
            if let Some(first) = args.first_mut() {
                *first = "vzctl".into();
            }
            match manual::asked(&args) {
                Some((work, dir)) => return written(manual::write(work, &dir)),
                None => vzctl::command::main(args),
            }
        }
    };
    ExitCode::from(code)
}

fn written(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            vzctl::Exit::System.into()
        }
    }
}
