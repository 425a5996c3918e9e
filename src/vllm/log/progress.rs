//! Progress of a start, read from the engine's log lines.
//!
//! The marks are the lines that vLLM 0.32 writes, in their order; the
//! percentages are where they stood in measured starts. A line that is not known
//! says nothing.

/// A mark of the log, what it means in words, and how far the start then is.
const MARKS: [(&str, &str, u8); 14] = [
    // Our own, from before there is a process.
    ("tidegate: installing vllm==", "installing vLLM", 1),
    ("is ready after", "vLLM is installed", 3),
    ("non-default args:", "starting vLLM", 5),
    (
        "Resolved architecture:",
        "reading the model's configuration",
        10,
    ),
    (
        "Using max model len",
        "reading the model's configuration",
        12,
    ),
    ("Initializing a V1 LLM engine", "starting the engine", 20),
    ("Starting to load model", "loading weights", 35),
    ("Loading weights took", "weights are loaded", 75),
    ("torch.compile takes", "compiling", 80),
    ("KV cache size:", "preparing the KV cache", 82),
    ("Capturing CUDA graph", "capturing CUDA graphs", 86),
    ("init engine (profile", "the engine is ready", 92),
    ("Starting vLLM server on", "opening the server", 96),
    (
        "Application startup complete",
        "waiting for the first answer",
        98,
    ),
];

/// Begin and end of the bar of weight shards within the whole.
const SHARDS: (u8, u8) = (35, 75);

/// The phase in words and the percentage that a log line tells of.
pub fn of_line(line: &str) -> Option<(&'static str, u8)> {
    if line.contains("checkpoint shards:") {
        let percent = shards_percent(line)?;
        let width = u16::from(SHARDS.1 - SHARDS.0);
        let part = width * u16::from(percent) / 100;
        let part = u8::try_from(part).unwrap_or(SHARDS.1 - SHARDS.0);
        return Some(("loading weights", SHARDS.0 + part));
    }
    let mark = MARKS.iter().find(|(mark, _, _)| line.contains(mark));
    mark.map(|&(_, words, percent)| (words, percent))
}

/// Reads `33` from `Loading safetensors checkpoint shards:  33% Completed | 1/3`.
fn shards_percent(line: &str) -> Option<u8> {
    let (before, _) = line.split_once("% Completed")?;
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|percent| *percent <= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_lines_tell_how_far_a_start_is() {
        let lines = [
            "(APIServer pid=1) INFO 11-23 14:22:09 [api_utils.py:286] non-default args: {'a': 1}",
            "(APIServer pid=1) INFO [model.py:733] Resolved architecture: LlamaForCausalLM",
            "(EngineCore pid=2) INFO [core.py:133] Initializing a V1 LLM engine (v0.32.0)",
            "(Worker pid=3) INFO [cpu_model_runner.py:68] Starting to load model models/llama...",
            "Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:00<00:00, 5it/s]",
            "(Worker pid=3) INFO [default_loader.py:501] Loading weights took 0.00 seconds",
            "(EngineCore pid=2) INFO CPU KV cache size: 2,097,152 tokens, Maximum concurrency",
            "(EngineCore pid=2) INFO init engine (profile, create kv cache) took 0.50 s",
            "(APIServer pid=1) INFO [entry.py:140] Starting vLLM server on http://127.0.0.1",
            "INFO:     Application startup complete.",
        ];
        let percents: Vec<_> = lines.iter().filter_map(|line| of_line(line)).collect();
        assert_eq!(percents.len(), lines.len());
        assert!(percents.is_sorted_by(|a, b| a.1 < b.1), "{percents:?}");
        assert_eq!(percents[4], ("loading weights", 55));
        assert_eq!(of_line("hello"), None);
        assert_eq!(of_line("checkpoint shards: 999% Completed"), None);
    }
}
