//! The figures as a file that gnuplot reads, and the plot, where it is installed.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use crate::Outcome;
use crate::shares::{Case, Result};

/// Of each case each competitor's part beside its entitlement.
pub(crate) fn shares(to: &Path, all: &[(Case, Vec<Result>)]) -> Outcome<()> {
    let mut data = String::from("# case\tarena\tunits\thad\tshould\n");
    for (case, results) in all {
        for result in results {
            for ((units, had), should) in case.units.iter().zip(&result.had).zip(&result.should) {
                writeln!(data, "{:?}\t{}\t{units}\t{had:.5}\t{should:.5}", case.what, result.arena)?;
            }
        }
        data.push_str("\n\n"); // gnuplot's next data set
    }
    let file = to.join("shares.tsv");
    fs_err::write(&file, data)?;
    let mut script = format!(
        "set terminal pngcairo size 1000,700 font ',11'\nset output '{}'\nset datafile separator '\\t'\nset key left top\n\
         set title 'CPU time of each container beside its entitlement'\nset xlabel 'entitled, processors'\nset ylabel 'had, processors'\n\
         set logscale xy\nset grid\nplot x with lines lc 'gray' title 'exactly', x*1.02 with lines dt 2 lc 'gray' title '2 % off', x*0.98 with lines dt 2 lc 'gray' notitle",
        to.join("shares.png").display()
    );
    for (arena, kind) in [("vz", 7), ("plain cgroups", 6), ("lxc", 8)] {
        write!(
            script,
            ", '{}' using ($5):(strcol(2) eq '{arena}' ? $4 : NaN) with points pt {kind} title '{arena}'",
            file.display()
        )?;
    }
    let plot = to.join("shares.gp");
    fs_err::write(&plot, script + "\n")?;
    match Command::new("gnuplot").arg(&plot).status() {
        Ok(status) if status.success() => println!("\nplotted: {}", to.join("shares.png").display()),
        Ok(status) => println!("\nnot plotted: gnuplot {}: {status}", plot.display()),
        Err(e) => println!("\nnot plotted: gnuplot: {e}"),
    }
    Ok(())
}
