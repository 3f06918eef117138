//! Runs the test programs of this checkout on this host: `suite fast`, `suite host`. See `make help`.

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tests::suite::{self, Options, Policy};

#[derive(Parser)]
struct Arguments {
    part: Part,
    /// Only of these crates; all of the workspace otherwise.
    #[arg(long = "package", short)]
    packages: Vec<String>,
    /// Only tests whose name contains this.
    test: Option<String>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    /// Unit tests and policy tests.
    Fast,
    /// What changes the machine, as root.
    Host,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tests::verdict(go(&arguments))
}

fn go(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let policy = Policy::read()?;
    let built = suite::build(&arguments.packages)?;
    let (label, programs) = match arguments.part {
        Part::Fast => ("fast", policy.fast(&built.programs)),
        Part::Host => ("host", policy.privileged(&built.programs)),
    };
    let options = Options {
        filter: arguments.test.clone().filter(|name| !name.is_empty()),
        limit: Duration::from_secs(policy.limit_seconds),
    };
    let report = suite::run(&programs, &options, &mut io::stdout())?;
    Ok(report.close(label, &suite::kind_of_host(), &mut io::stdout())?)
}
