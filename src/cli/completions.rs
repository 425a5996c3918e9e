//! `tidegate completions SHELL` and `tidegate man`: what the command line says of
//! itself, for shells and for `man`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man as Page;

use super::common::Failure;
use super::out;

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self, root: Command) -> Result<ExitCode, Failure> {
        out::raw_line(script(root, self.shell)?.trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}

fn script(root: Command, shell: Shell) -> Result<String, Failure> {
    let mut command = shown(root);
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    Ok(String::from_utf8(script)?)
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// The command whose page is printed, as `token create`; none: the page of tidegate
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
    /// Write the page of every command into this directory instead
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    directory: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(&self, root: Command) -> Result<ExitCode, Failure> {
        let pages = pages(root)?;
        if let Some(directory) = &self.directory {
            return write(directory, &pages);
        }
        let mut wanted = vec!["tidegate"];
        wanted.extend(self.command.iter().map(String::as_str));
        let wanted = wanted.join("-");
        let page = pages.iter().find(|(name, _)| *name == wanted);
        let (_, page) = page.ok_or_else(|| {
            let words = self.command.join(" ");
            format!("there is no command {words:?}: `tidegate --help` lists them")
        })?;
        out::raw_line(page.trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}

fn write(directory: &Path, pages: &[(String, String)]) -> Result<ExitCode, Failure> {
    for (name, page) in pages {
        let file = directory.join(format!("{name}.1"));
        std::fs::write(&file, page)
            .map_err(|error| format!("{} can't be written: {error}", file.display()))?;
    }
    out::line(format_args!(
        "{} pages written to {}",
        pages.len(),
        directory.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The pages of all commands, by name: `tidegate-token-create`.
fn pages(root: Command) -> Result<Vec<(String, String)>, Failure> {
    let mut command = shown(root);
    command.build();
    let mut pages = Vec::new();
    add(&command, "", &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, above: &str, pages: &mut Vec<(String, String)>) -> Result<(), Failure> {
    let name = match above {
        "" => command.get_name().to_owned(),
        above => format!("{above}-{}", command.get_name()),
    };
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        add(below, &name, pages)?;
    }
    let mut page = Vec::new();
    Page::new(command.clone().display_name(name.clone()))
        .title(name.to_uppercase())
        .render(&mut page)?;
    pages.push((name, String::from_utf8(page)?));
    Ok(())
}

/// The command line without what people don't type.
fn shown(command: Command) -> Command {
    let hidden = |command: &Command| command.is_hide_set();
    if !command.get_subcommands().any(hidden) {
        return command.disable_help_subcommand(true);
    }
    let kept: Vec<Command> = command
        .get_subcommands()
        .filter(|below| !hidden(below))
        .cloned()
        .collect();
    let fresh = Command::new("tidegate")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommands(kept);
    match command.get_about() {
        Some(about) => fresh.about(about.clone()),
        None => fresh,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;
    use super::*;

    #[test]
    fn each_command_has_a_page_and_a_completion_in_each_shell() {
        let pages = pages(Cli::command()).unwrap();
        let root = Cli::command();
        let names: Vec<&str> = root
            .get_subcommands()
            .filter(|below| !below.is_hide_set())
            .map(Command::get_name)
            .collect();
        assert!(names.len() > 25);
        for name in &names {
            let page = format!("tidegate-{name}");
            let found = pages.iter().find(|(known, _)| *known == page);
            let (_, text) = found.unwrap_or_else(|| panic!("no page of {name}"));
            assert!(text.contains(".SH SYNOPSIS"), "{name}");
        }
        assert!(
            pages
                .iter()
                .any(|(name, _)| name == "tidegate-token-create")
        );
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(Cli::command(), shell).unwrap();
            for name in &names {
                assert!(script.contains(name), "{name} in {shell}");
            }
            assert!(!script.contains("worker-exec"), "{shell}");
        }
        assert!(pages.iter().all(|(name, _)| !name.contains("worker")));
    }
}
