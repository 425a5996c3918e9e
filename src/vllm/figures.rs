//! Load of an engine by its own account, read from its Prometheus text.
//!
//! Requests of others are seen here, how full its cache is, and how well it guesses.

use super::taste::Guesses;

/// vLLM 0.32's gauge of requests that wait for a place in its batch.
const WAITING: &str = "vllm:num_requests_waiting";
/// vLLM 0.32's gauge of how full its KV cache is, 0 to 1; and the older name of it.
const CACHE: [&str; 2] = ["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"];

/// vLLM 0.32's counters of speculative decoding: tokens that were guessed, and those of them
/// that held. There are none where nothing is guessed.
const GUESSED: &str = "vllm:spec_decode_num_draft_tokens_total";
const HELD: &str = "vllm:spec_decode_num_accepted_tokens_total";

/// Findings of one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineLoad {
    /// Requests that wait inside the engine.
    pub waiting: u32,
    /// Filled part of its KV cache, in thousandths.
    pub cache: u32,
}

impl EngineLoad {
    /// Load of a server that has `in_flight` of our requests.
    ///
    /// A request that waits inside the engine counts a second time, as it holds up
    /// those behind it; a full cache counts as twice the requests, as the engine
    /// then puts requests out of its batch to go on.
    pub fn load(self, in_flight: u32) -> u64 {
        let requests = 1 + u64::from(in_flight) + u64::from(self.waiting);
        let cache = u64::from(self.cache.min(1_000));
        requests * (1_000_000 + cache * cache)
    }
}

/// Reads the figures in a page; `None` where it has none of them.
pub fn read(page: &str) -> Option<EngineLoad> {
    let mut waiting = None;
    let mut cache = None;
    for line in page.lines() {
        let Some((name, value)) = sample(line) else {
            continue;
        };
        // An engine of several ranks has a line for each: those that wait add up,
        // and the fullest cache counts.
        if name == WAITING {
            *waiting.get_or_insert(0.0) += value.clamp(0.0, 1e6);
        } else if CACHE.contains(&name) {
            let fullest = cache.get_or_insert(0.0_f64);
            *fullest = fullest.max(value.clamp(0.0, 1.0));
        }
    }
    if waiting.is_none() && cache.is_none() {
        return None;
    }
    Some(EngineLoad {
        waiting: whole(waiting.unwrap_or(0.0)),
        cache: whole(cache.unwrap_or(0.0) * 1_000.0),
    })
}

/// Reads the counts of speculative decoding in a page; `None` where nothing is guessed.
pub fn guesses(page: &str) -> Option<Guesses> {
    let mut found = None;
    for (name, value) in page.lines().filter_map(sample) {
        // Each rank of an engine has a line of its own.
        match name {
            GUESSED => found.get_or_insert_with(Guesses::default).guessed += value.max(0.0),
            HELD => found.get_or_insert_with(Guesses::default).held += value.max(0.0),
            _ => {}
        }
    }
    found
}

/// The name and the value of a sample; `None` for comments and what makes no sense.
fn sample(line: &str) -> Option<(&str, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    if !name.starts_with("vllm:") {
        return None;
    }
    // Label values may hold spaces and braces, but the value stands last; a
    // timestamp would be behind it, which vLLM does not write.
    let value: f64 = rest.rsplit(' ').next()?.parse().ok()?;
    value.is_finite().then_some((name, value))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0 to 1e6 before"
)]
fn whole(value: f64) -> u32 {
    value.round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_vllm_are_found_under_both_names() {
        let page = "# HELP vllm:num_requests_waiting Number of requests waiting.\n\
            # TYPE vllm:num_requests_waiting gauge\n\
            vllm:num_requests_running{engine=\"0\",model_name=\"a b}\"} 3.0\n\
            vllm:num_requests_waiting{engine=\"0\",model_name=\"a b}\"} 2.0\n\
            vllm:num_requests_waiting{engine=\"1\",model_name=\"a b}\"} 5.0\n\
            vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"a b}\"} 0.25\n\
            vllm:kv_cache_usage_perc{engine=\"1\",model_name=\"a b}\"} 0.5\n";
        let look = EngineLoad {
            waiting: 7,
            cache: 500,
        };
        assert_eq!(read(page), Some(look));
        let older = "vllm:gpu_cache_usage_perc 0.125\n";
        assert_eq!(read(older).map(|look| look.cache), Some(125));
        for page in [
            "",
            "up 1\n",
            "vllm:num_requests_waiting NaN\n",
            "vllm:",
            "{} 1",
        ] {
            assert_eq!(read(page), None, "{page:?}");
        }
        assert_eq!(
            read("vllm:num_requests_waiting -3e9\nvllm:kv_cache_usage_perc 7\n"),
            Some(EngineLoad {
                waiting: 0,
                cache: 1_000
            })
        );
    }

    #[test]
    fn guesses_of_all_ranks_add_up_and_without_counters_there_are_none() {
        let page = "vllm:spec_decode_num_drafts_total{engine=\"0\",model_name=\"a\"} 9.0\n\
            vllm:spec_decode_num_draft_tokens_total{engine=\"0\",model_name=\"a\"} 27.0\n\
            vllm:spec_decode_num_draft_tokens_total{engine=\"1\",model_name=\"a\"} 3.0\n\
            vllm:spec_decode_num_accepted_tokens_total{engine=\"0\",model_name=\"a\"} 12.0\n\
            vllm:spec_decode_num_accepted_tokens_created{engine=\"0\",model_name=\"a\"} 1.7e9\n";
        let wanted = Guesses {
            guessed: 30.0,
            held: 12.0,
        };
        assert_eq!(guesses(page), Some(wanted));
        assert_eq!(guesses("vllm:num_requests_waiting 0.0\n"), None);
    }

    #[test]
    fn who_waits_and_a_full_cache_make_a_server_look_busier() {
        let load = |in_flight, waiting, cache| EngineLoad { waiting, cache }.load(in_flight);
        assert!(load(2, 0, 0) > load(1, 0, 0));
        assert!(load(2, 3, 0) > load(3, 0, 0));
        assert_eq!(load(3, 0, 1_000), 2 * load(3, 0, 0));
        assert!(load(4, 0, 500) > load(4, 0, 100));
    }
}
