//! Faults that are known of workers with certain options when they wake, each with its source.
//!
//! Each is a warning and no refusal: what a wake did is tasted after it. A fault holds from
//! the version in which it was seen; none of them is known to be mended by a later one.

use crate::vllm::client::SleepLevel;
use crate::vllm::versions::Version;

/// A worker that may sleep, as its faults depend on it.
#[derive(Clone, Debug)]
pub struct Sleeper<'a> {
    /// Its model.
    pub model: &'a str,
    /// Flags of its command line, each with the word behind it.
    pub flags: Vec<(&'a str, Option<&'a str>)>,
    /// Its version of vLLM.
    pub version: Version,
    /// Depths to which it may sleep.
    pub levels: Vec<SleepLevel>,
}

/// Options that are known to go wrong after a sleep.
struct Pair {
    has: fn(&Sleeper<'_>) -> bool,
    /// `None`: after any sleep.
    level: Option<SleepLevel>,
    /// First version in which it was seen.
    from: Version,
    words: &'static str,
}

const PAIRS: &[Pair] = &[
    Pair {
        has: has_draft,
        level: Some(SleepLevel::Two),
        // By its source no version reads it again.
        from: Version::MIN,
        words: "a wake from disk does not read the draft model of speculative decoding again, which then guesses nothing right (vllm#52479)",
    },
    Pair {
        has: has_adapters,
        level: Some(SleepLevel::Two),
        from: Version::new(0, 17, 0),
        words: "a wake from disk fails with LoRA adapters, as seen in vLLM 0.17.0 (vllm#39934)",
    },
    Pair {
        has: has_adapters,
        level: Some(SleepLevel::One),
        from: Version::new(0, 27, 1),
        words: "a wake from host memory lost an adapter in vLLM 0.27.1 (vllm#53888)",
    },
    Pair {
        has: is_hybrid,
        level: Some(SleepLevel::Two),
        from: Version::MIN,
        words: "a wake from disk is known to go wrong with NemotronH and other hybrids with Mamba layers (vllm#42821)",
    },
    Pair {
        has: offloads_cache,
        level: Some(SleepLevel::One),
        from: Version::new(0, 22, 1),
        words: "the first wake from host memory ended the engine with native KV offloading in vLLM 0.22.1 (vllm#45268)",
    },
    Pair {
        has: is_nvfp4,
        level: None,
        from: Version::MIN,
        words: "with sleep mode NVFP4 weights need more GPU memory to load, and may not fit (vllm#48680)",
    },
];

/// Beginnings of the names of hybrids with Mamba layers, in lower case and without `-`.
const HYBRIDS: [&str; 9] = [
    "nemotronh",
    "nemotronnano",
    "nemotron3",
    "mamba",
    "jamba",
    "bamba",
    "zamba",
    "falconh1",
    "granite4",
];

/// True if a draft model guesses, which has weights of its own.
fn has_draft(sleeper: &Sleeper<'_>) -> bool {
    let of_draft = ["--speculative-config", "--speculative-model"];
    let mut drafts = sleeper.flags.iter().filter(|(flag, _)| {
        let name = flag.split('.').next().unwrap_or(flag);
        of_draft.contains(&name)
    });
    let without = |value: &str| value.contains("ngram") || value.contains("suffix");
    let first = drafts.clone().next().is_some();
    first && !drafts.any(|(_, value)| value.is_some_and(without))
}

fn has_adapters(sleeper: &Sleeper<'_>) -> bool {
    sleeper
        .flags
        .iter()
        .any(|(flag, _)| *flag == "--enable-lora")
}

/// True if the name of the model is that of a hybrid: its config need not be here yet.
fn is_hybrid(sleeper: &Sleeper<'_>) -> bool {
    let name = sleeper.model.to_lowercase().replace(['-', '_'], "");
    HYBRIDS.iter().any(|hybrid| name.contains(hybrid))
}

/// True if the cache is moved to host memory by vLLM itself.
fn offloads_cache(sleeper: &Sleeper<'_>) -> bool {
    let value = |name: &str| {
        let mut flags = sleeper.flags.iter();
        flags
            .find(|(flag, _)| *flag == name)
            .map(|(_, value)| *value)
    };
    let backend = value("--kv-offloading-backend").flatten();
    let native = backend.is_none_or(|backend| backend == "native");
    let connector = value("--kv-transfer-config").flatten();
    value("--kv-offloading-size").is_some() && native
        || connector.is_some_and(|config| config.contains("OffloadingConnector"))
}

/// True if the weights are quantized so by the options or by the model's name.
fn is_nvfp4(sleeper: &Sleeper<'_>) -> bool {
    let is = |text: &str| text.contains("fp4");
    let mut flags = sleeper.flags.iter();
    let stated = flags.any(|(flag, value)| *flag == "--quantization" && value.is_some_and(is));
    stated || sleeper.model.to_lowercase().contains("nvfp4")
}

/// Faults that are known of this worker, in sentences.
pub fn warnings(sleeper: &Sleeper<'_>) -> Vec<String> {
    let concerns = |pair: &&Pair| {
        let sleeps = match pair.level {
            Some(level) => sleeper.levels.contains(&level),
            None => !sleeper.levels.is_empty(),
        };
        sleeps && sleeper.version >= pair.from && (pair.has)(sleeper)
    };
    let known = PAIRS.iter().filter(concerns);
    known
        .map(|pair| format!("{}: each wake is tasted", pair.words))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [SleepLevel; 2] = [SleepLevel::One, SleepLevel::Two];
    const NEWEST: Version = Version::new(0, 32, 0);

    /// The sources that are named.
    fn told(model: &str, line: &str, version: Version, levels: &[SleepLevel]) -> Vec<String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let words = words.iter().enumerate();
        let behind = |place: usize| line.split_whitespace().nth(place + 1);
        let flags = words.map(|(place, word)| (word.as_str(), behind(place)));
        let sleeper = Sleeper {
            model,
            flags: flags.collect(),
            version,
            levels: levels.to_vec(),
        };
        let sources = warnings(&sleeper).into_iter().map(|warning| {
            let (_, rest) = warning.split_once("(vllm#").unwrap();
            rest.split_once(')').unwrap().0.to_owned()
        });
        sources.collect()
    }

    #[test]
    fn each_known_pair_is_told_for_the_levels_that_are_permitted() {
        use SleepLevel::{One, Two};
        for (model, line, levels, sources) in [
            ("a/b", "", &BOTH[..], &[][..]),
            (
                "a/b",
                "--speculative-config {\"model\":\"d\"}",
                &BOTH,
                &["52479"],
            ),
            ("a/b", "--speculative-model org/draft", &[Two], &["52479"]),
            ("a/b", "--speculative-config {\"model\":\"d\"}", &[One], &[]),
            (
                "a/b",
                "--speculative-config {\"method\":\"ngram\"}",
                &BOTH,
                &[],
            ),
            ("a/b", "--enable-lora", &BOTH, &["39934", "53888"]),
            ("a/b", "--enable-lora", &[One], &["53888"]),
            ("a/b", "--enable-lora", &[], &[]),
            ("nvidia/Nemotron-H-8B-Base", "", &BOTH, &["42821"]),
            ("ai21labs/Jamba-1.5", "", &[One], &[]),
            ("a/b", "--kv-offloading-size 8", &BOTH, &["45268"]),
            (
                "a/b",
                "--kv-offloading-size 8 --kv-offloading-backend lmcache",
                &BOTH,
                &[],
            ),
            ("a/b", "--quantization modelopt_fp4", &[Two], &["48680"]),
            ("nvidia/Llama-NVFP4", "", &[One], &["48680"]),
        ] {
            assert_eq!(told(model, line, NEWEST, levels), sources, "{model} {line}");
        }
    }

    #[test]
    fn a_version_before_the_one_in_which_a_fault_was_seen_is_not_warned_of_it() {
        let lora = |version| told("a/b", "--enable-lora", version, &BOTH);
        assert_eq!(lora(Version::new(0, 16, 0)), [""; 0]);
        assert_eq!(lora(Version::new(0, 17, 0)), ["39934"]);
        assert_eq!(lora(Version::new(0, 27, 1)), ["39934", "53888"]);
        let offload = |version| told("a/b", "--kv-offloading-size 8", version, &BOTH);
        assert_eq!(offload(Version::new(0, 22, 0)), [""; 0]);
        assert_eq!(offload(Version::new(0, 22, 1)), ["45268"]);
    }
}
