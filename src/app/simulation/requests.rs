//! Requests of the clients of a history.

use std::fmt::Write;

use super::clients::{self, Call, Manner};
use super::facts::{Ask, Script};
use super::history::History;

impl History {
    /// A client comes, with one or several requests.
    pub(super) fn ask(&mut self) {
        let count = 1 + self.dice.below(3);
        let mut calls = Vec::new();
        for n in 0..count {
            let pause = match n {
                0 => 0,
                _ => [10, 800, 5_000][self.dice.below(3)],
            };
            calls.push((self.call(), pause));
        }
        let stream = self.life().connect();
        let client = clients::run(stream, calls, self.facts.clone());
        self.stage.tasks.spawn_bare(client);
    }

    fn call(&mut self) -> Call {
        let number = self.facts.lock().asks.len();
        let token = match self.dice.below(12) {
            0 => None,
            _ => self.any_token(),
        };
        let model = ["ext", "ext", "own", "own", "other"][self.dice.below(5)];
        let (bearer, allowed) = self.authority(token, model);
        let manner = match self.dice.below(12) {
            0 => Manner::Slow([100, 700, 6_000][self.dice.below(3)]),
            1 => Manner::Leaves(self.dice.below(3_000) as u64),
            2 => Manner::Half,
            3 => Manner::Stalls,
            4 => Manner::Deaf,
            _ => Manner::Plain,
        };
        let scripts: Vec<_> = (0..3).map(|_| self.script()).collect();
        let body = self.body(model);
        self.note(number, model, token, manner, scripts, allowed);
        Call {
            number,
            manner,
            text: head(number, bearer.as_deref(), &body).into_bytes(),
        }
    }

    /// Token that a request shows, and if it may come to a server by that.
    fn authority(&mut self, token: Option<usize>, model: &str) -> (Option<String>, bool) {
        let Some(token) = token else {
            let bad = ["tgw_a.b.c", "nothing"][self.dice.below(2)];
            return (self.dice.happens(0.7).then(|| bad.to_owned()), false);
        };
        let token = self.facts.lock().tokens[token].clone();
        let mut text = token.text.to_string();
        let is_of = model != "other" || token.workspace == "other";
        if self.dice.happens(0.05) {
            // The signature is another's.
            text.replace_range(text.len() - 6.., "AAAAAA");
            return (Some(text), false);
        }
        (Some(text), is_of)
    }

    fn body(&mut self, model: &str) -> String {
        let stream = self.dice.happens(0.6);
        let filler = "y".repeat(self.dice.below(3_000));
        match self.dice.below(16) {
            0 => "{\"model\":".to_owned(),
            1 => format!("{{\"model\":\"{model}\",\"model\":\"other\",\"messages\":[]}}"),
            2 => format!("{{\"model\":\"none\",\"x\":\"{filler}\"}}"),
            3 => format!("{{\"model\":\"{model}\",\"x\":\"{}\"}}", "z".repeat(40_000)),
            4 => format!(
                "{{\"model\":\"{model}\",\"max_tokens\":99999,\"messages\":[],\"x\":\"{filler}\"}}"
            ),
            _ => format!(
                "{{\"model\":\"{model}\",\"stream\":{stream},\"messages\":[{{\"role\":\"user\",\"content\":\"{filler}\"}}]}}"
            ),
        }
    }

    fn script(&mut self) -> Script {
        let events = 1 + self.dice.below(12) as u64;
        match self.dice.below(20) {
            0 => Script::StreamCut { events },
            1 => Script::StreamStall { events },
            2 => Script::Status([400, 401, 429, 500, 503][self.dice.below(5)]),
            3 => Script::Gone,
            4 => Script::Silent,
            5 => Script::Garbage,
            6 => Script::Half,
            7 => Script::Nonsense,
            8..13 => Script::Json {
                after: [0, 40, 900, 14_000][self.dice.below(4)],
            },
            _ => Script::Stream {
                events,
                apart: [0, 20, 300, 2_000][self.dice.below(4)],
            },
        }
    }

    /// A good request.
    pub(super) fn send(
        &self,
        number: usize,
        model: &str,
        token: Option<usize>,
        text: Option<&str>,
    ) -> Call {
        let body = format!("{{\"model\":\"{model}\",\"messages\":[]}}");
        self.note(
            number,
            model,
            token,
            Manner::Plain,
            vec![Script::Json { after: 0 }],
            true,
        );
        Call {
            number,
            manner: Manner::Plain,
            text: head(number, text, &body).into_bytes(),
        }
    }

    fn note(
        &self,
        number: usize,
        model: &str,
        token: Option<usize>,
        manner: Manner,
        scripts: Vec<Script>,
        allowed: bool,
    ) {
        let what = format!("request {number} for {model} by {token:?}: {manner:?}, {scripts:?}");
        let mut known = self.facts.lock();
        known.step(&what);
        known.asks.push(Ask {
            token,
            allowed,
            scripts,
            served: 0,
            told: None,
            answer: None,
            lines: 0,
            lost: false,
        });
    }
}

/// A request as it is sent.
fn head(number: usize, bearer: Option<&str>, body: &str) -> String {
    let mut text = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: sim\r\nx-request-id: sim-{number}\r\n\
         content-type: application/json\r\n"
    );
    if let Some(bearer) = bearer {
        write!(text, "authorization: Bearer {bearer}\r\n").unwrap();
    }
    write!(text, "content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    text
}
