//! The line of a request in the access log.

use std::cell::RefCell;
use std::time::Duration;

use super::Record;
use crate::openai::api::Api;
use crate::telemetry::line::Line;
use crate::telemetry::metrics::Outcome;

thread_local! {
    /// The line at hand, so that none is allocated for each request.
    static LINE: RefCell<Line> = const { RefCell::new(Line::new()) };
}

impl Record {
    /// Writes it to the access log.
    pub(super) fn log(&self, total: Duration) {
        LINE.with_borrow_mut(|line| {
            line.begin();
            self.put_who(line);
            self.put_how(line, total);
            self.put_tokens(line);
            self.sink.log.write(line.end());
        });
    }

    /// Writes who asked, and for what.
    fn put_who(&self, line: &mut Line) {
        line.text("request_id", &self.request_id);
        line.hex("trace_id", self.trace.id.0, 32);
        line.address("peer", self.origin.client);
        self.head.put(line);
        if let Some(principal) = self.principal.as_deref() {
            line.text("workspace", principal.workspace.as_str());
            line.text("subject", &principal.subject);
            line.text("token_id", &principal.token_id);
            line.text_if("token_label", principal.label.as_deref());
        }
        line.text_if("api", self.api.map(Api::label));
        if let Some(destination) = &self.destination {
            line.text("route", destination.route.name.as_str());
            line.text("model", destination.name.as_str());
        }
        line.text_if("deployment", self.target.as_ref().map(|t| &*t.label));
        if let Some(served) = &self.served {
            line.text("target", served.by().as_str());
            line.text_if("passed_over", served.passed_over().as_deref());
        }
        line.flag("stream", self.stream);
        line.count_if("retry", self.retry.map(u64::from));
        let retries = (self.retries > 0).then_some(self.retries);
        line.count_if("upstream_retries", retries.map(u64::from));
    }

    /// Writes how the request ended, and when what came.
    fn put_how(&self, line: &mut Line, total: Duration) {
        let status = self.status.map(|status| status.as_u16());
        line.count_if("status", status.map(u64::from));
        line.text("outcome", self.outcome.as_str());
        if self.outcome == Outcome::ClientGone {
            line.text("phase", self.phase.as_str());
        }
        line.text_if("reason", self.reason);
        line.millis("total_ms", total);
        line.millis("auth_ms", self.waits.auth);
        line.millis("body_ms", self.waits.body);
        line.millis("queue_ms", self.waits.queue);
        line.millis_if("cold_start_ms", self.waits.cold_start);
        line.millis("overhead_ms", self.waits.overhead);
        line.millis("connect_ms", self.waits.connect);
        line.millis("first_byte_ms", self.waits.first_byte);
        let stream = self
            .waits
            .until_stream
            .map(|until| total.saturating_sub(until));
        line.millis_if("stream_ms", stream);
        line.millis_if("first_token_ms", self.tokens.first);
        line.count("bytes_in", self.bytes_in);
        line.count("bytes_out", self.bytes_out);
    }

    /// Tokens, as far as they were told.
    fn put_tokens(&self, line: &mut Line) {
        if let Some(usage) = self.usage {
            line.count("prompt_tokens", usage.prompt);
            line.count("completion_tokens", usage.completion);
            line.count("cached_tokens", usage.cached);
        }
        if self.usage_estimated {
            line.flag("usage_estimated", true);
        }
        line.decimal_if("audio_seconds", self.audio_seconds);
        line.tenths_if("tokens_per_second", self.tokens_per_second_tenths());
    }

    /// Tenths of completion tokens a second, over the time in which they came.
    fn tokens_per_second_tenths(&self) -> Option<u64> {
        let (first, last) = (self.tokens.first?, self.tokens.last?);
        let gaps = u128::from(self.tokens.count.checked_sub(1)?);
        let micros = last.saturating_sub(first).as_micros();
        let tenths = (gaps * 10_000_000 + micros / 2).checked_div(micros)?;
        u64::try_from(tenths).ok().filter(|tenths| *tenths > 0)
    }
}
