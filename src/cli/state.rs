//! `tidegate state export | import | set-back-clock`

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;
use http_body_util::BodyExt;

use super::client::Client;
use super::common::{Failure, RemoteArg};
use super::out;
use super::token::offline::{self, is_offline};
use crate::admin::view::ClockView;
use crate::auth::keys::previous_beside;
use crate::config::Settings;
use crate::store::export::{FORMAT, Row};
use crate::store::whole::write_durable;
use crate::store::{self, Store};

/// Largest line of a backup, in bytes.
const LINE_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(super) struct State {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    remote: RemoteArg,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write tokens, revocations, usage, audit, the signing key and secrets to a file;
    /// it is as secret as the key
    Export {
        /// The file, or `-` for standard output
        file: PathBuf,
    },
    /// Make the state of a gateway that is stopped from a backup
    Import(Import),
    /// Hold tokens against the wall clock again, where a newer time that was known was
    /// wrong
    SetBackClock,
}

#[derive(Debug, Args)]
struct Import {
    /// The file, or `-` for standard input
    file: PathBuf,
    /// Put it in the place of a store and key that are there; the store is kept beside
    #[arg(long)]
    replace: bool,
    /// Accept the tokens of the backup, though some may have been revoked since
    #[arg(long)]
    trust: bool,
}

/// Reason for which a backup is not restored.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error("a gateway runs here: stop it first, and start it when this is done")]
    Running,
    #[error(
        "{0}: this is not a backup of `tidegate state export`, or not whole (line {1}); nothing was changed"
    )]
    NotWhole(PathBuf, usize),
    #[error("{0} was written by a newer tidegate: restore it with that one; nothing was changed")]
    Newer(PathBuf),
    #[error(
        "{0} is there already: add --replace to put the backup in its place; nothing was changed"
    )]
    There(PathBuf),
}

impl State {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let settings = self.remote.config.load()?;
        let client = Client::new(&self.remote)?;
        match self.command {
            Command::Export { file } => export(&settings, &client, &file).await?,
            Command::Import(import) => import.run(&settings, &client).await?,
            Command::SetBackClock => set_back_clock(&settings, &client).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn set_back_clock(settings: &Settings, client: &Client) -> Result<(), Failure> {
    let path = "state/set-back-clock";
    let asked = client
        .call::<ClockView>(Method::POST, path, None::<&()>)
        .await;
    let by = if is_offline(&asked) {
        offline::open(settings)?.set_back_clock()?
    } else {
        asked?.set_back_seconds
    };
    out::line(format_args!(
        "tokens are held against the wall clock, {by} s earlier than the newest time that was known"
    ))
}

/// The files beside the store that belong to a backup, by their names in it.
fn files(settings: &Settings) -> [(&'static str, PathBuf); 3] {
    let key = &settings.tokens.signing_key;
    [
        ("tokens.key", key.clone()),
        ("tokens.key.previous", previous_beside(key)),
        ("secrets.json", settings.gateway.state.join("secrets.json")),
    ]
}

async fn export(settings: &Settings, client: &Client, file: &Path) -> Result<(), Failure> {
    let asked = client.stream("state/export").await;
    let mut text = Vec::new();
    if is_offline(&asked) {
        let store = offline::open(settings)?;
        let mut written = Ok(());
        store.export(|row| {
            written = line(&mut text, row);
            written.is_ok()
        })?;
        written?;
    } else {
        let mut body = asked?;
        while let Some(frame) = body.frame().await {
            text.extend_from_slice(&frame?.into_data().unwrap_or_default());
        }
    }
    let mut rows = read(file, &text[..])?;
    rows.pop();
    for (name, path) in files(settings) {
        match fs::read_to_string(&path) {
            Ok(content) => rows.push(Row::File(name.to_owned(), content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    rows.push(Row::End(rows.len() as u64));
    text.clear();
    for row in &rows {
        line(&mut text, row)?;
    }
    if file == Path::new("-") {
        io::stdout().lock().write_all(&text)?;
        return Ok(());
    }
    write_durable(file, &text)?;
    out::line(format_args!(
        "{} is written, readable by this user only: {}",
        file.display(),
        counted(&rows)
    ))
}

fn line(text: &mut Vec<u8>, row: &Row) -> Result<(), serde_json::Error> {
    serde_json::to_writer(&mut *text, row)?;
    text.push(b'\n');
    Ok(())
}

fn counted(rows: &[Row]) -> String {
    let count = |is: fn(&&Row) -> bool| rows.iter().filter(is).count();
    format!(
        "{} tokens, {} revocations, {} holders of other issuers, usage of {}, {} audit events, {} files",
        count(|row| matches!(row, Row::Token(..))),
        count(|row| matches!(row, Row::Revoked(..) | Row::CutOff(..))),
        count(|row| matches!(row, Row::Holder(..))),
        count(|row| matches!(row, Row::Usage(..))),
        count(|row| matches!(row, Row::Audit(..))),
        count(|row| matches!(row, Row::File(..))),
    )
}

/// Reads a whole backup, or nothing of it.
fn read(file: &Path, text: impl Read) -> Result<Vec<Row>, Failure> {
    let mut text = BufReader::new(text);
    let mut rows = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let bytes = (&mut text)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)?;
        if bytes == 0 {
            break;
        }
        let not_whole = |_| ImportError::NotWhole(file.to_owned(), rows.len() + 1);
        let row = serde_json::from_slice::<Row>(&line).map_err(not_whole)?;
        match &row {
            Row::State(head) if head.format > FORMAT => {
                return Err(ImportError::Newer(file.to_owned()).into());
            }
            _ => rows.push(row),
        }
    }
    let is_begun = matches!(rows.first(), Some(Row::State(_)));
    let is_ended = matches!(rows.last(), Some(Row::End(count)) if *count + 1 == rows.len() as u64);
    if is_begun && is_ended {
        return Ok(rows);
    }
    Err(ImportError::NotWhole(file.to_owned(), rows.len()).into())
}

impl Import {
    async fn run(self, settings: &Settings, client: &Client) -> Result<(), Failure> {
        if !is_offline(&client.get::<serde_json::Value>("status").await) {
            return Err(ImportError::Running.into());
        }
        let rows = if self.file == Path::new("-") {
            read(&self.file, io::stdin().lock())?
        } else {
            read(&self.file, File::open(&self.file)?)?
        };
        let state = &settings.gateway.state;
        self.may_replace(settings, &rows)?;
        make_store(state, &rows)?;
        for (name, path) in files(settings) {
            let content = rows.iter().find_map(|row| match row {
                Row::File(kept, content) if kept == name => Some(content),
                _ => None,
            });
            if let Some(content) = content {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)?;
                }
                write_durable(&path, content.as_bytes())?;
            }
        }
        let key = &settings.tokens.signing_key;
        let opened = Store::open_restored(state, key, self.trust)?;
        out::line(format_args!("restored {}", counted(&rows)))?;
        for text in opened.notes.iter().chain(&opened.store.warnings(false)) {
            out::note(text);
        }
        Ok(())
    }

    /// Checks that the present state may be replaced, before anything is.
    fn may_replace(&self, settings: &Settings, rows: &[Row]) -> Result<(), Failure> {
        if self.replace {
            return Ok(());
        }
        let store = settings.gateway.state.join(store::FILE);
        if fs::metadata(&store).is_ok_and(|data| data.len() > 0) {
            return Err(ImportError::There(store).into());
        }
        for (name, path) in files(settings) {
            let Ok(there) = fs::read_to_string(&path) else {
                continue;
            };
            let is_other = |row: &Row| matches!(row, Row::File(kept, content) if kept == name && *content != there);
            if rows.iter().any(is_other) {
                return Err(ImportError::There(path).into());
            }
        }
        Ok(())
    }
}

/// Makes the store beside, and puts it in its place once it is whole.
fn make_store(state: &Path, rows: &[Row]) -> Result<(), Failure> {
    let place = state.join(store::FILE);
    if fs::exists(&place)? {
        // It is ours, or no one's: a gateway that has it would be found here.
        if let Err(error @ store::StoreError::InUse { .. }) = Store::open(state) {
            return Err(error.into());
        }
    }
    let beside = state.join("import");
    if fs::exists(&beside)? {
        fs::remove_dir_all(&beside)?;
    }
    let made = Store::open(&beside)?;
    made.put_rows(rows)?;
    drop(made);
    if fs::metadata(&place).is_ok_and(|data| data.len() > 0) {
        fs::rename(&place, state.join("store.redb.replaced"))?;
    }
    fs::rename(beside.join(store::FILE), &place)?;
    fs::remove_dir(&beside)?;
    File::open(state)?.sync_all()?;
    Ok(())
}
