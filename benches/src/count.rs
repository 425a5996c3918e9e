//! Instructions of the pieces of a request, counted under valgrind.
//!
//! Time varies with the machine and with who else uses it; instructions hardly do. Each
//! piece is run in a process of its own, once N times and once 2N times, and only what
//! [`counted_runs`] executes is counted, not what preparing it took, which varies with
//! keys, seeds and paths: the difference over N is what one run executes. Owns the
//! figures file and the comparison with it, which fails where a piece takes over 3 % more
//! than committed. Does not know the pieces ([`crate::parts`]).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::error::{BenchError, During};
use crate::histogram::to_f64;
use crate::parts::{PARTS, Part};
use crate::process;

/// Share by which a count may exceed the committed one.
const MARGIN: f64 = 0.03;

/// Counts of a piece, of which the least holds, where the first is too high or is to be
/// written: a machine that is busy makes the pieces wait, and a wait takes instructions.
const TRIES: u32 = 3;

/// Counts instructions of the pieces of a request, and compares them with the committed figures
#[derive(clap::Args)]
pub(crate) struct CountArgs {
    /// Pieces to count; all if none is given
    parts: Vec<String>,
    /// The committed figures
    #[arg(long, default_value = "benches/instructions.json")]
    figures: PathBuf,
    /// Write what was counted there instead of comparing
    #[arg(long)]
    write: bool,
}

/// Runs a piece so many times; for `count` and for profiles
#[derive(clap::Args)]
pub(crate) struct PartArgs {
    /// Which piece
    name: String,
    /// How often
    runs: u32,
}

type Figures = BTreeMap<String, u64>;

/// Runs one piece.
pub(crate) fn part(args: &PartArgs) -> Result<(), BenchError> {
    let part = PARTS.iter().find(|part| part.name == args.name);
    let part = part.ok_or_else(|| unknown(&args.name))?;
    let mut run = (part.make)()?;
    run();
    counted_runs(&mut run, args.runs);
    Ok(())
}

/// Valgrind counts from this function's start to its end, and knows it by its name.
#[inline(never)]
fn counted_runs(run: &mut dyn FnMut(), runs: u32) {
    for _ in 0..runs {
        run();
    }
}

fn unknown(name: &str) -> BenchError {
    let names: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
    BenchError::said(format!(
        "there is no piece {name}; there are {}",
        names.join(", ")
    ))
}

/// Counts, then writes or compares.
pub(crate) fn run(args: &CountArgs) -> Result<(), BenchError> {
    if let Some(name) = args.parts.iter().find(|name| !is_known(name)) {
        return Err(unknown(name));
    }
    let committed: Figures = match std::fs::read(&args.figures) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(_) if args.write => Figures::new(),
        Err(error) => {
            return Err(error).during(|| format!("read {}", args.figures.display()));
        }
    };
    let (mut counted, mut worse) = (committed.clone(), Vec::new());
    let chosen = |part: &&Part| args.parts.is_empty() || args.parts.iter().any(|n| n == part.name);
    for part in PARTS.iter().filter(chosen) {
        let before = committed.get(part.name).copied();
        let has_grown =
            |count| before.is_none_or(|before| to_f64(count) > to_f64(before) * (1.0 + MARGIN));
        let mut least = count(part)?;
        for _ in 1..TRIES {
            if args.write || has_grown(least) {
                least = least.min(count(part)?);
            }
        }
        counted.insert(part.name.to_owned(), least);
        say(part, least, before)?;
        if has_grown(least) {
            worse.push(part.name);
        }
    }
    if args.write {
        let text = serde_json::to_string_pretty(&counted)? + "\n";
        return std::fs::write(&args.figures, text)
            .during(|| format!("write {}", args.figures.display()));
    }
    if worse.is_empty() {
        return Ok(());
    }
    Err(BenchError::said(format!(
        "over 3 % more instructions than {} says: {}; if that is worth it, run `tidegate-bench count --write {}` and commit the file with the change",
        args.figures.display(),
        worse.join(", "),
        worse.join(" "),
    )))
}

fn is_known(name: &str) -> bool {
    PARTS.iter().any(|part| part.name == name)
}

fn say(part: &Part, count: u64, before: Option<u64>) -> Result<(), BenchError> {
    let change = before.map_or_else(
        || "new".to_owned(),
        |before| {
            let change = to_f64(count) / to_f64(before.max(1)) - 1.0;
            format!("{:+.1} %", change * 100.0)
        },
    );
    let (name, shows) = (part.name, part.shows);
    writeln!(
        std::io::stdout(),
        "{name:10} {count:>10}  {change:>8}  {shows}"
    )
    .during(|| "write to stdout".to_owned())
}

/// Instructions of one run.
fn count(part: &Part) -> Result<u64, BenchError> {
    let (once, twice) = (total(part, part.runs)?, total(part, part.runs * 2)?);
    Ok(twice.saturating_sub(once) / u64::from(part.runs.max(1)))
}

/// Instructions of a process that runs a piece so many times.
fn total(part: &Part, runs: u32) -> Result<u64, BenchError> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(concat!(
            "--toggle-collect=",
            module_path!(),
            "::counted_runs"
        ))
        .arg(process::own_binary()?)
        .args(["part", part.name])
        .arg(runs.to_string())
        .stdin(Stdio::null())
        .output()
        .during(|| "run valgrind; is it installed?".to_owned())?;
    let words = String::from_utf8_lossy(&output.stderr);
    words
        .lines()
        .filter_map(|line| line.split_once("Collected :"))
        .find_map(|(_, count)| count.trim().parse().ok())
        .filter(|_| output.status.success())
        .ok_or_else(|| BenchError::said(format!("{} failed under valgrind: {words}", part.name)))
}
