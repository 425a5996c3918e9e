//! The table says what the readers do, and README.md what the table says.

use std::ffi::OsString;
use std::path::Path;

use super::render::{example, readme};
use super::*;
use crate::config::{file, gateway};
use crate::names::QueueName;

/// Texts in which a table of `tidegate.toml` may end, and what must stand beside its keys.
const SETTINGS_TABLES: &[(&str, &str)] = &[
    ("[gateway]", ""),
    ("[tls]", "client_ca = \"ca.pem\""),
    ("[[tls.certificates]]", ""),
    ("[cors]", ""),
    ("[telemetry]", "otlp_endpoint = \"http://127.0.0.1:4318\""),
    ("[tokens]", ""),
    ("[tokens.hs256]", "issuer = \"idp\"\nsecret_file = \"s\""),
    (
        "[[tokens.trusted]]",
        "issuer = \"idp\"\njwks = \"j\"\nworkspace = \"w\"",
    ),
    ("[admin]", ""),
    ("[metrics]", ""),
    ("[gpus]", ""),
    ("[gpus]\nsource = \"simulated\"\n[[gpus.simulated]]", ""),
    ("[placement]", ""),
    ("[workers]", ""),
    ("[models]", ""),
    ("[queues.NAME]", ""),
    ("[workspaces.NAME]", ""),
    ("[engines.vllm]", ""),
    ("[engines.vllm.allowed]", ""),
];

/// The same of route files.
const ROUTE_TABLES: &[(&str, &str)] = &[
    ("[route]", ""),
    ("[route]\nname = \"r\"\n[route.timeouts]", ""),
    ("[route]\nname = \"r\"\n[route.stream]", ""),
    (
        "[route]\nname = \"r\"\n[route.load_balancing]",
        "session_header = \"x-session\"",
    ),
    ("[route]\nname = \"r\"\n[route.retries]", ""),
    ("[route]\nname = \"r\"\n[route.ejection]", ""),
    ("[route]\nname = \"r\"\n[[upstream]]", ""),
    (
        "[route]\nname = \"r\"\n[[upstream]]\nurl = \"http://127.0.0.1:1\"\n[upstream.health_check]",
        "",
    ),
    ("[route]\nname = \"r\"\n[[name]]", ""),
    (
        "[route]\nname = \"r\"\n[[target]]\nto = \"m\"\n[route.targets]",
        "",
    ),
    (
        "[route]\nname = \"r\"\n[[target]]\nto = \"m\"\n[route.targets.mirror]",
        "",
    ),
    (
        "[route]\nname = \"r\"\n[route.targets]\nprefer = \"weight\"\n[[target]]",
        "",
    ),
    ("[[deployment]]\nmodel = \"m\"\n[instance]", ""),
    (
        "[[deployment]]\nmodel = \"m\"\n[instance]\nname = \"i\"\n[instance.idle]",
        "",
    ),
    ("[instance]\nname = \"i\"\n[[deployment]]", ""),
    (
        "[instance]\nname = \"i\"\n[[deployment]]\nmodel = \"m\"\n[deployment.replicas]",
        "",
    ),
    (
        "[instance]\nname = \"i\"\nengine = \"sim\"\n[[deployment]]\nmodel = \"m\"\n[deployment.sim]",
        "",
    ),
];

/// Settings of a file, with its lines left out, and its errors.
fn settings(text: &str) -> (String, Vec<String>) {
    let (settings, errors) = gateway::parse(Path::new("t.toml"), text.as_bytes());
    let errors = errors.iter().map(ToString::to_string).collect();
    (format!("{settings:?}"), errors)
}

fn route(text: &str) -> (String, Vec<String>) {
    let queues = [QueueName::new("local").unwrap()];
    match file::parse(Path::new("t.toml"), text.as_bytes(), &queues) {
        Ok(parts) => {
            let mut said = String::new();
            for part in format!("{parts:?}").split("line: ") {
                said.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
            }
            (said, Vec::new())
        }
        Err(errors) => {
            let errors = errors.iter().map(ToString::to_string).collect();
            (String::new(), errors)
        }
    }
}

/// Reads a file: what it means, and what is wrong with it.
type Read = fn(&str) -> (String, Vec<String>);

/// A text that ends in a table, what else must stand there, and how it is read.
struct Place {
    begin: &'static str,
    beside: &'static str,
    table: &'static KeyTable,
    read: Read,
}

impl Place {
    /// A file with these lines in the table; the lines beside and those of required
    /// keys are left out where they would stand twice.
    fn file(&self, lines: &str) -> String {
        let mut text = format!("{}\n", self.begin);
        let required = self.table.keys.iter();
        let required = required.filter(|key| key.default == Default::Required);
        let required: Vec<String> = required
            .map(|key| format!("{} = {}", key.name, example(key)))
            .collect();
        let mut written: Vec<&str> = lines.lines().map(name).collect();
        for line in self
            .beside
            .lines()
            .chain(required.iter().map(String::as_str))
        {
            if !written.contains(&name(line)) {
                written.push(name(line));
                text.push_str(line);
                text.push('\n');
            }
        }
        text + lines
    }

    fn errors(&self, lines: &str) -> Vec<String> {
        (self.read)(&self.file(lines)).1
    }

    /// The keys that are no tables.
    fn keys(&self) -> impl Iterator<Item = &'static Key> {
        let inner = |key: &&Key| !matches!(key.kind, Kind::Table(_) | Kind::Tables(_));
        self.table.keys.iter().filter(inner)
    }
}

/// The key of a line.
fn name(line: &str) -> &str {
    line.split(" =").next().unwrap_or_default()
}

/// Every table that has keys; a table that is not reached fails here.
fn places() -> Vec<Place> {
    let files: [(&'static KeyTable, _, Read); 2] = [
        (&SETTINGS, SETTINGS_TABLES, settings),
        (&ROUTE_FILE, ROUTE_TABLES, route),
    ];
    let mut places = Vec::new();
    for (top, texts, read) in files {
        let mut rest: Vec<_> = render::flat(top)
            .into_iter()
            .filter(|(_, table)| {
                !table
                    .keys
                    .iter()
                    .all(|key| matches!(key.kind, Kind::Table(_)))
            })
            .collect();
        for (begin, beside) in texts {
            let heading = begin.lines().last().unwrap();
            let found = rest.iter().position(|(name, _)| name == heading);
            let (_, table) = rest.remove(found.unwrap_or_else(|| panic!("no table {heading}")));
            places.push(Place {
                begin,
                beside,
                table,
                read,
            });
        }
        let rest: Vec<_> = rest.into_iter().map(|(name, _)| name).collect();
        assert!(rest.is_empty(), "no text ends in {rest:?}");
    }
    places
}

#[test]
fn every_key_has_a_sentence_and_a_name_of_its_own() {
    for (_, table) in [&SETTINGS, &ROUTE_FILE]
        .into_iter()
        .flat_map(|top| render::flat(top))
    {
        let mut names: Vec<_> = table.names().collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), table.keys.len(), "{names:?}");
        for key in table.keys {
            let sentence = key.sentence();
            assert!(
                sentence.ends_with('.')
                    || matches!(key.kind, Kind::Table(inner) if inner.help.is_empty()),
                "{}: {sentence:?}",
                key.name
            );
        }
    }
}

#[test]
fn a_default_that_is_written_means_the_same_as_none() {
    let mut wrong = Vec::new();
    for place in places() {
        let empty = (place.read)(&place.file(""));
        if !empty.1.is_empty() {
            wrong.push(format!("{}: {:?}", place.begin, empty.1));
        }
        for key in place.keys() {
            if let Default::Value(value) = key.default {
                let line = format!("{} = {value}", key.name);
                let written = (place.read)(&place.file(&line));
                if written != empty {
                    wrong.push(format!("{line} in {}: {:?}", place.begin, written.1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_key_is_read_and_its_errors_say_where() {
    for place in places() {
        for key in place.keys() {
            // No key takes a date.
            let errors = place.errors(&format!("{} = 2024-01-01", key.name));
            let told = errors.iter().any(|error| {
                error.contains(&format!(".{}: write ", key.name)) && error.contains("not a date")
            });
            assert!(told, "{} in {}: {errors:?}", key.name, place.begin);
            for value in right(key) {
                let errors = place.errors(&format!("{} = {value}", key.name));
                let faults = errors.iter().any(|error| {
                    error.contains("fault of the program") || error.contains("unknown")
                });
                assert!(
                    !faults,
                    "{} = {value} in {}: {errors:?}",
                    key.name, place.begin
                );
            }
            let misspelt = format!("{}_x", key.name);
            let errors = place.errors(&format!("{misspelt} = 1"));
            let told = errors
                .iter()
                .any(|error| error.contains(&format!("{misspelt}: this key is unknown")));
            assert!(told, "{misspelt} in {}: {errors:?}", place.begin);
        }
    }
}

/// Values that a key takes.
fn right(key: &Key) -> Vec<String> {
    let quoted = |words: &[&str]| words.iter().map(|word| format!("{word:?}")).collect();
    match key.kind {
        Kind::Choice(words) => quoted(words),
        Kind::ChoiceOr(words, form) => {
            let mut all: Vec<String> = quoted(words);
            all.push(format!("[{:?}]", form.example));
            all
        }
        Kind::Choices(words) => words.iter().map(|word| format!("[{word:?}]")).collect(),
        _ => vec![example(key)],
    }
}

#[test]
fn bounds_of_the_table_are_those_of_the_reader() {
    let mut tried = 0;
    for place in places() {
        for key in place.keys() {
            let (inside, outside) = match key.kind {
                Kind::Whole(least, most) => (
                    vec![least.to_string(), most.to_string()],
                    [i64::from(least) - 1, i64::from(most) + 1]
                        .iter()
                        .map(ToString::to_string)
                        .collect(),
                ),
                Kind::Number(least, most) => (
                    vec![format!("{least:?}"), format!("{most:?}")],
                    vec![format!("{:?}", least - 1.0), format!("{:?}", most + 1.0)],
                ),
                Kind::Span(least, most) => {
                    let text = |span: Duration| format!("\"{}us\"", span.as_micros());
                    let mut outside = vec![text(most + SECOND)];
                    outside.extend(least.checked_sub(MILLISECOND / 2).map(text));
                    (vec![text(least), text(most)], outside)
                }
                Kind::Size(least, most) => {
                    let text = |bytes: u64| format!("\"{bytes}B\"");
                    let mut outside = vec![text(most + KIB)];
                    outside.extend(least.checked_sub(1).map(text));
                    (vec![text(least), text(most)], outside)
                }
                _ => continue,
            };
            let is_told = |value: &String| {
                let errors = place.errors(&format!("{} = {value}", key.name));
                errors.iter().any(|error| {
                    error.contains(&format!("{}: ", key.name))
                        && error.contains("out of bounds: write ")
                })
            };
            for value in &outside {
                assert!(is_told(value), "{} = {value} in {}", key.name, place.begin);
                tried += 1;
            }
            for value in &inside {
                assert!(!is_told(value), "{} = {value} in {}", key.name, place.begin);
            }
        }
    }
    assert!(tried > 100, "{tried}");
}

#[test]
fn readme_has_the_common_keys_as_the_table_says_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme_file = std::fs::read_to_string(path).unwrap();
    let block = readme_file
        .split_once("every key has a default:\n\n```toml\n")
        .and_then(|(_, behind)| behind.split_once("```"))
        .map(|(block, _)| block);
    assert!(
        block == Some(&readme()),
        "put this into README.md (`tidegate options --format readme`):\n{}",
        readme()
    );
}

fn given(file: &str, variables: &[(&str, &str)]) -> (String, Vec<String>) {
    let variables = variables
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let (settings, errors) = gateway::parse_over(Path::new("t.toml"), file.as_bytes(), variables);
    let errors = errors.iter().map(ToString::to_string).collect();
    (format!("{settings:?}"), errors)
}

#[test]
fn a_variable_means_what_the_same_key_means_in_the_file() {
    for (name, value, file) in [
        (
            "TIDEGATE_GATEWAY_LISTEN",
            "127.0.0.1:1, [::1]:2",
            "[gateway]\nlisten = [\"127.0.0.1:1\", \"[::1]:2\"]",
        ),
        (
            "TIDEGATE_GATEWAY__LISTEN",
            "[\"127.0.0.1:1\"]",
            "[gateway]\nlisten = [\"127.0.0.1:1\"]",
        ),
        (
            "TIDEGATE_GATEWAY_KEEP_ALIVE",
            "620s",
            "[gateway]\nkeep_alive = \"620s\"",
        ),
        (
            "TIDEGATE_GATEWAY_ACCESS_LOG",
            "\"a.log\"",
            "[gateway]\naccess_log = \"a.log\"",
        ),
        (
            "TIDEGATE_CORS_CREDENTIALS",
            "true",
            "[cors]\ncredentials = true",
        ),
        (
            "TIDEGATE_PLACEMENT_QUANTUM",
            "3",
            "[placement]\nquantum = 3",
        ),
        (
            "TIDEGATE_WORKSPACES",
            "{ acme = { max_concurrent_requests = 7 } }",
            "[workspaces.acme]\nmax_concurrent_requests = 7",
        ),
        (
            "TIDEGATE_ENGINES_VLLM_VERSIONS",
            "{ \"0.11.0\" = \"/opt/v\" }",
            "[engines.vllm.versions]\n\"0.11.0\" = \"/opt/v\"",
        ),
        (
            "TIDEGATE_TOKENS_TRUSTED",
            "[{ issuer = \"i\", audience = \"a\", jwks = \"j\", workspace = \"w\" }]",
            "[[tokens.trusted]]\nissuer = \"i\"\naudience = \"a\"\njwks = \"j\"\nworkspace = \"w\"",
        ),
    ] {
        let written = settings(file);
        assert_eq!(written.1, [""; 0], "{file}");
        assert_ne!(written, settings(""), "{file}");
        assert_eq!(given("", &[(name, value)]), written, "{name}={value}");
    }
    // It wins over the file, and leaves the rest of its table.
    let file = "[gateway]\nkeep_alive = \"1m\"\nstate = \"s\"";
    let won = given(file, &[("TIDEGATE_GATEWAY_KEEP_ALIVE", "2m")]);
    assert_eq!(
        won,
        settings("[gateway]\nkeep_alive = \"2m\"\nstate = \"s\"")
    );
}

#[test]
fn every_key_has_a_variable_whose_errors_name_it() {
    let all = environment::variables();
    let mut names: Vec<_> = all.iter().map(|variable| variable.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len(), "two keys have one variable");
    for variable in &all {
        for wrong in ["", "\"never closed", "[never, closed"] {
            let is_read_as_text = !wrong.is_empty()
                && matches!(
                    variable.key.kind,
                    Kind::Text(_) | Kind::Texts(_) | Kind::Choices(_)
                )
                && (wrong.starts_with('[') == matches!(variable.key.kind, Kind::Text(_)));
            if is_read_as_text {
                continue;
            }
            let (_, errors) = given("", &[(&variable.name, wrong)]);
            let begin = format!(
                "environment variable {}: {}",
                variable.name,
                variable.path.join(".")
            );
            let told = errors.iter().any(|error| error.starts_with(&begin));
            assert!(told, "{}={wrong}: {errors:?}", variable.name);
        }
    }
}

#[test]
fn variables_that_are_no_keys_are_told_where_they_were_meant_so() {
    for (name, expected) in [
        (
            "TIDEGATE_GATEWAY_LISTN",
            "did you mean TIDEGATE_GATEWAY_LISTEN?",
        ),
        ("TIDEGATE_GATEWAY", "no key is called so"),
        ("TIDEGATE_ADMIN_TOKENS", "no key is called so"),
        ("TIDEGATE_WORKSPACES_ACME_MAX", "no key is called so"),
    ] {
        let (_, errors) = given("", &[(name, "x")]);
        assert_eq!(errors.len(), 1, "{name}: {errors:?}");
        assert!(
            errors[0].contains(expected) && errors[0].contains(name),
            "{errors:?}"
        );
    }
    // The command line's own, checks of this crate, and what Kubernetes sets.
    for name in [
        "TIDEGATE_ADMIN_TOKEN",
        "TIDEGATE_CONFIG",
        "TIDEGATE_CI_CACHE",
        "TIDEGATE_PORT",
        "TIDEGATE_SERVICE_HOST",
        "TIDEGATE_GATEWAY_SERVICE_HOST",
        "TIDEGATE_GATEWAY_SERVICE_PORT_HTTPS",
        "TIDEGATE_GATEWAY_PORT",
        "TIDEGATE_GATEWAY_PORT_8443_TCP",
        "TIDEGATE_GATEWAY_PORT_8443_TCP_ADDR",
        "PATH",
    ] {
        assert_eq!(
            given("", &[(name, "tcp://10.0.0.1:8443")]),
            settings(""),
            "{name}"
        );
    }
    let both = [
        ("TIDEGATE_GATEWAY_STATE", "a"),
        ("TIDEGATE_GATEWAY__STATE", "b"),
    ];
    assert!(given("", &both).1[0].contains("given twice"));
    let (_, errors) = given("", &[("TIDEGATE_GATEWAY_STREAMS_MAX", "0")]);
    assert_eq!(
        errors,
        [
            "environment variable TIDEGATE_GATEWAY_STREAMS_MAX: gateway.streams_max: 0 is out of bounds: write 1 to 10000"
        ]
    );
}
