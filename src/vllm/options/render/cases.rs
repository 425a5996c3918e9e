//! Command lines for the proof against a real vLLM.
//!
//! Each line is a JSON object: the option, the words after `vllm`, and our
//! verdict. A script gives the words to the real parser and compares.

use std::io::{self, Write};

use serde_json::{Map, Value as Json, json};

use super::super::OPTIONS;
use super::super::row::{Home, OptionRow, OptionScope};
use super::super::set::{OptionError, OptionSet};
use super::super::value::{SecretSource, SecretText};
use crate::outbound::dial::media::Media;
use crate::vllm::args::{CommandLine, Launch, Listen, Sleep, command_line};
use crate::vllm::rules::{self, Allowed, Hardware};
use crate::vllm::versions::{Arg, ArgForm, VersionArgs};

/// Prints a case for every option set to its example, one with all that go
/// together, and for every argument of the version a good and a wrong value.
///
/// # Errors
///
/// Errors of the writer.
pub fn cases(out: &mut dyn Write, knowledge: &VersionArgs) -> io::Result<()> {
    let mut all = Map::new();
    for row in OPTIONS
        .iter()
        .filter(|row| matches!(row.home, Home::Options(_)))
    {
        let table = with_companions(row);
        let built = built(knowledge, &table);
        if built.is_ok() && row.name != "cli" && row.name != "disk_swapping" {
            all.extend(table.clone());
        }
        option_case(out, row, knowledge, built)?;
    }
    // These say the same as others in the set.
    for name in ["max_cuda_memory", "config_overrides", "model_overrides"] {
        all.remove(name);
    }
    line(out, "all together", built(knowledge, &all))?;
    for arg in knowledge.iter() {
        for value in values(arg) {
            let cli = match value {
                Some(value) => format!("{} '{value}'", arg.flag()),
                None => arg.flag().to_owned(),
            };
            argument_case(out, knowledge, arg, &cli)?;
        }
    }
    argument_lines(out, knowledge)
}

/// Lines that no argument's own values give: abbreviations, stray words, owned.
fn argument_lines(out: &mut dyn Write, knowledge: &VersionArgs) -> io::Result<()> {
    for cli in [
        "--no-such-flag",
        "stray",
        "--enforce-eager yes",
        "--max-num-seqs",
        "--max-num-seqs 4 5",
    ] {
        let table = Map::from_iter([("cli".to_owned(), Json::from(cli))]);
        let verdict = built(knowledge, &table).is_ok();
        let mut words = frame();
        words.extend(cli.split(' ').map(str::to_owned));
        print(out, cli, &words, verdict)?;
    }
    Ok(())
}

/// An option's example, and the options without which it has no meaning.
fn with_companions(row: &'static OptionRow) -> Map<String, Json> {
    let mut table = Map::new();
    let mut next = Some(row);
    while let Some(row) = next {
        let example = serde_json::from_str(row.example).unwrap_or(Json::Null);
        table.insert(row.name.to_owned(), example);
        let needed = rules::needed_by(row.name).filter(|name| !table.contains_key(*name));
        next = needed.and_then(super::super::find);
    }
    if row.name.starts_with("ngram_") {
        table.insert("speculative_model".to_owned(), "[ngram]".into());
    }
    if row.name.starts_with("rope_") {
        table.insert("rope_theta".to_owned(), 10_000.into());
        table.insert(
            "rope_scaling".to_owned(),
            json!({"rope_type": "dynamic", "factor": 2.0}),
        );
    }
    table
}

fn built(
    knowledge: &VersionArgs,
    table: &Map<String, Json>,
) -> Result<CommandLine, Vec<OptionError>> {
    let options = OptionSet::parse(OptionScope::Both, table)?;
    command_line(&Launch {
        model: "m",
        served_names: &[],
        options: &options,
        version: &knowledge.version(),
        knowledge,
        listen: Listen::Tcp("127.0.0.1", 8101),
        sleep: Sleep::No,
        allowed: &Allowed::all(),
        media: &Media::default(),
        chat_template: false,
        machine: Hardware {
            amd64: true,
            ..Hardware::default()
        },
        resolve: &|_: &SecretSource| Ok(SecretText::new("secret".to_owned())),
    })
}

fn frame() -> Vec<String> {
    let words = ["serve", "m", "--host", "127.0.0.1", "--port", "8101"];
    words.map(str::to_owned).to_vec()
}

/// The case of an option. Where we refuse it, the flag that it once had is what
/// the real parser is asked.
fn option_case(
    out: &mut dyn Write,
    row: &OptionRow,
    knowledge: &VersionArgs,
    built: Result<CommandLine, Vec<OptionError>>,
) -> io::Result<()> {
    let first = row.spans.first().and_then(|span| span.form.flag());
    let gone = first.filter(|flag| !knowledge.has(flag));
    match (built, gone) {
        (Err(_), Some(flag)) => {
            let mut words = frame();
            words.extend([flag.to_owned(), "1".to_owned()]);
            print(out, row.name, &words, false)
        }
        (built, _) => line(out, row.name, built),
    }
}

fn line(
    out: &mut dyn Write,
    what: &str,
    built: Result<CommandLine, Vec<OptionError>>,
) -> io::Result<()> {
    match built {
        Ok(line) => print(out, what, &line.argv, true),
        Err(errors) => {
            let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Err(io::Error::other(format!("{what}: {}", text.join("; "))))
        }
    }
}

fn print(out: &mut dyn Write, what: &str, words: &[String], verdict: bool) -> io::Result<()> {
    let verdict = if verdict { "accept" } else { "refuse" };
    let case = json!({ "case": what, "argv": words, "verdict": verdict });
    writeln!(out, "{case}")
}

/// Values to try with an argument; `None` for no value.
fn values(arg: &Arg) -> Vec<Option<&str>> {
    let choice = arg.choices.first().map(|choice| Some(choice.as_str()));
    match arg.form {
        ArgForm::Switch | ArgForm::NoSwitch => vec![None],
        _ if choice.is_some() => choice.into_iter().chain([Some("no-such-choice")]).collect(),
        ArgForm::Integer => vec![Some("1"), Some("many"), Some("1.5"), None],
        ArgForm::Float => vec![Some("0.5"), Some("much"), None],
        ArgForm::Tokens => vec![Some("1024"), Some("2k"), Some("many"), None],
        _ => vec![None],
    }
}

fn argument_case(
    out: &mut dyn Write,
    knowledge: &VersionArgs,
    arg: &Arg,
    cli: &str,
) -> io::Result<()> {
    // What is Tidegate's own or optional is not the parser's to judge.
    if crate::vllm::args::is_owned(arg.flag()) || arg.form == ArgForm::Optional {
        return Ok(());
    }
    let table = Map::from_iter([("cli".to_owned(), Json::from(cli))]);
    let verdict = built(knowledge, &table).is_ok();
    let mut words = frame();
    words.extend(crate::vllm::args::split(cli).unwrap_or_default());
    print(out, cli, &words, verdict)
}
