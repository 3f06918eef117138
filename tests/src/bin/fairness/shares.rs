//! Parts of all processors.

use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::node::Node;
use vzrt::cgroup::{Competitor, entitled};

use crate::competing::{Arena, Containers, Load, Plain, used};
use crate::entitled::{jain, worst};
use crate::lxc::Lxc;
use crate::{Arguments, Outcome, plot, processors, spread};

/// After all have begun: the kernel needs a moment to spread them over its processors.
const SETTLE: Duration = Duration::from_secs(2);

/// What one comparison is.
pub(crate) struct Case {
    pub(crate) what: String,
    pub(crate) units: Vec<u64>,
    pub(crate) load: Load,
}

/// What came of it in one arena, of each round: the largest difference from the entitlement, Jain's index; and what each had in the last.
pub(crate) struct Result {
    pub(crate) arena: &'static str,
    pub(crate) worst: Vec<f64>,
    pub(crate) jain: Vec<f64>,
    pub(crate) had: Vec<f64>,
    pub(crate) should: Vec<f64>,
}

fn cases(most: usize, processors: u32) -> Vec<Case> {
    let equal = |count: usize| vec![1000; count];
    let rising = |count: usize| [1000, 2000, 4000, 8000].into_iter().cycle().take(count).collect::<Vec<u64>>();
    let mut cases = Vec::new();
    for count in [2, 4, 16, 64].into_iter().filter(|count| *count <= most) {
        // As many as there are processors, or there is nothing to divide.
        let load = Load::Busy(processors);
        cases.push(Case { what: format!("{count} equal"), units: equal(count), load });
        let what = if count == 2 { "2 as 1:2".to_owned() } else { format!("{count} as 1:2:4:8") };
        cases.push(Case { what, units: rising(count), load });
    }
    let ways = [
        ("1 process each", Load::Busy(1)),
        ("64 processes each", Load::Busy(64)),
        ("forking without end", Load::Forking(processors)),
        ("sleepers beside", Load::Mixed(processors)),
    ];
    for (what, load) in ways {
        cases.push(Case { what: format!("4 as 1:2:4:8, {what}"), units: rising(4), load });
    }
    cases
}

pub(crate) fn measure(node: &Node, arguments: &Arguments, window: Duration) -> Outcome<()> {
    let processors = processors()?;
    println!(
        "\nthe largest difference of a part from its entitlement, and Jain's index; windows of {window:?}, median of {} (least..most)",
        arguments.rounds
    );
    let mut arenas: Vec<Box<dyn Arena + '_>> = vec![Box::new(Containers::of(node)), Box::new(Plain::new()?)];
    match Lxc::find()? {
        Some(lxc) => arenas.push(Box::new(lxc)),
        None => println!("  no lxc on this host"),
    }
    let head: String = arenas.iter().map(|arena| format!("   {:>26} {:>9}", arena.name(), "Jain")).collect();
    println!("  {:<36}{head}", "");
    let mut all = Vec::new();
    for case in cases(arguments.most, u32::try_from(processors)?) {
        let mut results: Vec<_> = arenas.iter().map(|arena| empty(arena.name())).collect();
        for _ in 0..arguments.rounds {
            for (arena, result) in arenas.iter_mut().map(Box::as_mut).zip(&mut results) {
                let measured = once(arena, &case, processors, window);
                arena.end()?;
                let (had, should) = measured?;
                result.worst.push(worst(&had, &should) * 100.0);
                result.jain.push(jain(&had, &should));
                (result.had, result.should) = (had, should);
            }
        }
        println!("  {:<36}{}", case.what, results.iter().map(told).collect::<String>());
        all.push((case, results));
    }
    plot::shares(&arguments.to, &all)
}

fn empty(arena: &'static str) -> Result {
    Result { arena, worst: Vec::new(), jain: Vec::new(), had: Vec::new(), should: Vec::new() }
}

fn told(result: &Result) -> String {
    let [median, least, most] = spread(&result.worst);
    let [jain, ..] = spread(&result.jain);
    let figure = format!("{median:.2} % ({least:.2}..{most:.2})");
    format!("   {figure:>26} {jain:>9.5}")
}

/// What each had and what of all that they had together it should have had, in processors.
fn once(arena: &mut dyn Arena, case: &Case, processors: usize, window: Duration) -> Outcome<(Vec<f64>, Vec<f64>)> {
    arena.begin(&case.units, case.load)?;
    let cgroups = arena.cgroups();
    if cgroups.len() != case.units.len() {
        return Err(format!("{}: {} of {} have a cgroup", arena.name(), cgroups.len(), case.units.len()).into());
    }
    sleep(SETTLE);
    let read = || cgroups.iter().map(|cgroup| used(cgroup)).collect::<Outcome<Vec<_>>>();
    let (begun, before) = (Instant::now(), read()?);
    sleep(window);
    let (took, after) = (begun.elapsed(), read()?);
    let part =
        |(after, before): (&Duration, &Duration)| after.saturating_sub(*before).as_secs_f64() / took.as_secs_f64();
    let had: Vec<f64> = after.iter().zip(&before).map(part).collect();
    // What the host itself used was not to be divided.
    let together = had.iter().sum::<f64>().min(processors as f64);
    let competitors: Vec<_> =
        case.units.iter().map(|units| Competitor { weight: *units as f64, most: case.load.most() }).collect();
    let should = entitled(&competitors, together);
    Ok((had, should))
}
