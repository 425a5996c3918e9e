//! Reason why a worker ended: read from how it ended and from its last lines.
//!
//! A table of what vLLM 0.32, `PyTorch`, CUDA and the kernel say, with what a
//! person can do about it. What stands here is shown to people and decides one
//! thing: whether another try could help. A line that is not known says nothing.

/// Findings on an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict<'a> {
    /// The line of the log that says so; `None` where the log is silent.
    pub(crate) line: Option<&'a str>,
    /// Words for what happened, and what to do about it.
    pub(crate) words: Option<&'static str>,
    /// True if another try with the same options would end the same way.
    pub(crate) permanent: bool,
}

/// A mark in the log, what it means, and whether trying again is of no use.
struct Known {
    /// All of these stand in the line.
    marks: &'static [&'static str],
    words: &'static str,
    permanent: bool,
}

const fn once(marks: &'static [&'static str], words: &'static str) -> Known {
    Known {
        marks,
        words,
        permanent: true,
    }
}

const fn again(marks: &'static [&'static str], words: &'static str) -> Known {
    Known {
        marks,
        words,
        permanent: false,
    }
}

const KV_TOO_SMALL: &str = "what is left of the GPU is too small for one request of full length: \
     lower max_model_len, or raise gpu_memory_utilization";
const GATED: &str = "the model is gated: accept its terms at Hugging Face, and give the instance \
     a token that may read it (option huggingface_token)";
const NO_MODEL: &str = "there is no such model: check deployment.model, or whether the token may \
     read it";
const GPU_FULL: &str = "the GPU has too little free memory: lower gpu_memory_utilization, \
     max_model_len or max_num_seqs, or take another GPU";
const OTHERS_ON_GPU: &str = "others use the GPU's memory, so the share asked for is not free: \
     lower gpu_memory_utilization, or free the GPU";

/// In the order of their telling: the first that is found counts.
const TABLE: [Known; 24] = [
    once(
        &["error: unrecognized arguments"],
        "vLLM does not know this option: see `tidegate options`",
    ),
    once(
        &["error: argument "],
        "vLLM refuses the value of an option: see `tidegate options`",
    ),
    once(&["GatedRepoError"], GATED),
    once(&["Access to model", "is restricted"], GATED),
    once(&["Cannot access gated repo"], GATED),
    once(&["RepositoryNotFoundError"], NO_MODEL),
    once(
        &["is not a local folder and is not a valid model identifier"],
        NO_MODEL,
    ),
    once(&["Invalid repository ID or local directory"], NO_MODEL),
    once(
        &["Model architectures", "are not supported"],
        "this vLLM does not know the model's architecture: name a newer vllm_version",
    ),
    once(
        &["trust_remote_code=True"],
        "the model brings code of its own: set trust_remote_code = true if you trust it",
    ),
    once(
        &["Sleep mode is not supported on current platform"],
        "this platform can't offload: take automatic_cpu_offloading and disk_swapping out",
    ),
    once(
        &["max seq len", "larger than the maximum number of tokens"],
        KV_TOO_SMALL,
    ),
    once(
        &["To serve at least one request with the model"],
        KV_TOO_SMALL,
    ),
    once(
        &["User-specified max_model_len", "is greater than"],
        "the model takes no context that long: lower max_model_len",
    ),
    again(
        &["is less than desired GPU memory utilization"],
        OTHERS_ON_GPU,
    ),
    again(&["No available memory for the cache blocks"], GPU_FULL),
    again(&["OutOfMemoryError"], GPU_FULL),
    again(&["CUDA out of memory"], GPU_FULL),
    again(
        &["No space left on device"],
        "the disk is full: free space where models and logs are kept",
    ),
    again(
        &["Address already in use"],
        "another process has the address: it is tried again on a new one",
    ),
    again(
        &["No CUDA GPUs are available"],
        "the worker sees no GPU: see what `nvidia-smi` says, and whether the driver fits this vLLM",
    ),
    again(
        &["CUDA driver version is insufficient"],
        "the NVIDIA driver is too old for this vLLM: update it, or name an older vllm_version",
    ),
    again(
        &["NCCL error"],
        "the GPUs could not talk to each other: see `nvidia-smi topo -m`, and that /dev/shm is large enough",
    ),
    again(
        &["Engine core proc", "died unexpectedly"],
        "the engine's process was killed from outside, most often for want of main memory",
    ),
];

/// Reads an end: `how` in words as the launcher tells it, whether the kernel
/// counted a kill for want of memory, and the worker's lines.
pub(crate) fn of<'a>(
    how: &str,
    out_of_memory: bool,
    lines: impl DoubleEndedIterator<Item = &'a str> + Clone,
) -> Verdict<'a> {
    if out_of_memory {
        return Verdict {
            line: None,
            words: Some(
                "the kernel killed it for want of main memory: raise workers.memory_max, or lower \
                 what the model keeps there (swap_space, cpu_offload_gb)",
            ),
            permanent: false,
        };
    }
    let found = TABLE.iter().find_map(|known| {
        let says = |line: &&str| known.marks.iter().all(|mark| line.contains(mark));
        Some((known, lines.clone().rev().find(says)?))
    });
    if let Some((known, line)) = found {
        return Verdict {
            line: Some(line),
            words: Some(known.words),
            permanent: known.permanent,
        };
    }
    let words = match how {
        "exited with code 2" => Some("vLLM refuses its command line: see `tidegate args`"),
        "was ended by signal 7" => {
            Some("a page of shared memory could not be had: /dev/shm is full or too small")
        }
        "was killed (signal 9)" => {
            Some("someone killed it; the kernel does so for want of main memory")
        }
        // It was not ours to wait for: its parent was an earlier gateway.
        "ended" => Some("how is not known, as it was started before this gateway"),
        _ => None,
    };
    Verdict {
        line: telling_line(lines),
        words,
        permanent: how == "exited with code 2",
    }
}

/// The line of a log that tells most about why its process ended; `None` where
/// none names an error.
fn telling_line<'a>(lines: impl DoubleEndedIterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let clean = |line: &&str| !line.trim().is_empty();
    let names_error = |line: &&str| {
        let is_summary = line.contains("Engine core initialization failed");
        (line.contains("Error") || line.contains("error:")) && !is_summary
    };
    lines.filter(clean).rev().find(names_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_tells_most_is_found_with_what_to_do() {
        for (line, permanent, advice) in [
            (
                "vllm serve: error: unrecognized arguments: --max-len 4",
                true,
                "tidegate options",
            ),
            (
                "huggingface_hub.errors.GatedRepoError: 401 Client Error.",
                true,
                "accept its terms",
            ),
            (
                "OSError: qwen is not a local folder and is not a valid model identifier listed",
                true,
                "deployment.model",
            ),
            (
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
                false,
                "lower gpu_memory_utilization",
            ),
            (
                "ValueError: Free memory on device cuda:0 (9.1/79.2 GiB) on startup is less than desired GPU memory utilization (0.9, 71.3 GiB).",
                false,
                "free the GPU",
            ),
            (
                "OSError: [Errno 28] No space left on device",
                false,
                "disk is full",
            ),
        ] {
            let log = [
                "INFO starting",
                line,
                "RuntimeError: Engine core initialization failed. See root cause above.",
                "",
            ];
            let verdict = of("exited with code 1", false, log.into_iter());
            assert_eq!(verdict.line, Some(line));
            assert_eq!(verdict.permanent, permanent, "{line}");
            assert!(
                verdict.words.unwrap().contains(advice),
                "{line}: {verdict:?}"
            );
        }
    }

    #[test]
    fn an_unknown_end_is_told_by_its_last_error() {
        let log = [
            "INFO starting",
            "KeyError: 'quantization_config'",
            "RuntimeError: Engine core initialization failed. See root cause above.",
            "",
        ];
        let verdict = of("exited with code 1", false, log.into_iter());
        assert_eq!((verdict.line, verdict.words), (Some(log[1]), None));
        assert!(!verdict.permanent);
        assert_eq!(telling_line(["a", "b", ""].into_iter()), None);
        assert_eq!(telling_line(std::iter::empty()), None);
    }

    #[test]
    fn the_kernels_count_and_the_exit_code_tell_where_the_log_is_silent() {
        let none = || std::iter::empty::<&str>();
        assert!(of("x", true, none()).words.unwrap().contains("memory_max"));
        assert!(of("exited with code 2", false, none()).permanent);
        assert!(!of("was killed (signal 9)", false, none()).permanent);
    }
}
