//! Requests from a file: arrivals that were recorded, or made by another tool.
//!
//! Owns [`FORMAT`], the text of the help.

use std::collections::HashMap;

use super::trace::{ARRIVALS_MAX, Model, PlayedMachine, Workload};
use crate::lifecycle::decide::policy::Seconds;
use crate::units::{Bytes, counted};

/// Form of a file.
pub const FORMAT: &str = "\
  A file has a header, then a line for each request, in any order:
    at,model,weights,gpus,work,key
    0.0,qwen3-8b,16GiB,1,2.5,alice
    1.7,qwen3-32b,64GiB,2,8.0,bob
  at       seconds since the beginning
  model    the deployment's name
  weights  size of its weights; its first line counts [default: 16GiB]
  gpus     how many GPUs it takes; its first line counts [default: 1]
  work     seconds that the request takes alone [default: 3]
  key      whose request it is [default: nobody's]
  workspace  whose deployment it is; its first line counts [default: everybody's]
  Columns may come in any order; those with a default may be left out.";

/// Longest trace, in seconds: a year.
const HORIZON_MAX: Seconds = 366.0 * 86_400.0;
/// Seconds that a request takes where the file does not say.
const WORK: Seconds = 3.0;
/// Weights where the file does not say.
const WEIGHTS: u64 = 16 << 30;

/// Error of a file, and its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct CsvError {
    line: usize,
    why: String,
}

const COLUMNS: [&str; 7] = ["at", "model", "weights", "gpus", "work", "key", "workspace"];

/// One line, with its columns by the order of [`COLUMNS`].
struct Line<'a> {
    number: usize,
    cells: Vec<Option<&'a str>>,
}

impl<'a> Line<'a> {
    fn wrong<T>(&self, why: impl Into<String>) -> Result<T, CsvError> {
        Err(CsvError {
            line: self.number,
            why: why.into(),
        })
    }

    fn cell(&self, column: usize) -> Option<&'a str> {
        let cell = self.cells.get(column).copied().flatten();
        cell.filter(|cell| !cell.is_empty())
    }

    fn seconds(&self, column: usize, max: Seconds) -> Result<Option<Seconds>, CsvError> {
        let Some(cell) = self.cell(column) else {
            return Ok(None);
        };
        match cell.parse() {
            Ok(seconds) if (0.0..=max).contains(&seconds) => Ok(Some(seconds)),
            _ => {
                let name = COLUMNS.get(column).copied().unwrap_or_default();
                self.wrong(format!(
                    "column {name}: write seconds from 0 to {max}, not {cell:?}"
                ))
            }
        }
    }
}

/// Reads the requests of a file.
///
/// # Errors
///
/// [`CsvError`] with the line that is wrong.
pub fn trace(name: &str, text: &str, machine: PlayedMachine) -> Result<Workload, CsvError> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let order = header(lines.next())?;
    let mut fleet: Vec<Model> = Vec::new();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let mut keys: HashMap<String, u32> = HashMap::new();
    let mut workspaces: HashMap<String, u32> = HashMap::new();
    let mut arrivals = Vec::new();
    for (number, text) in lines {
        let line = split(number, text, &order)?;
        if arrivals.len() == ARRIVALS_MAX {
            return line.wrong(format!("a trace has at most {ARRIVALS_MAX} requests"));
        }
        let Some(at) = line.seconds(0, HORIZON_MAX)? else {
            return line.wrong("column at: write the seconds since the beginning");
        };
        let Some(model) = line.cell(1) else {
            return line.wrong("column model: write the deployment's name");
        };
        let model = if let Some(known) = numbers.get(model) {
            *known
        } else {
            numbers.insert(model.to_owned(), fleet.len());
            let mut model = new_model(&line, model, machine)?;
            let next = u32::try_from(workspaces.len()).unwrap_or(u32::MAX);
            let workspace = line.cell(6).unwrap_or_default().to_owned();
            model.workspace = *workspaces.entry(workspace).or_insert(next);
            fleet.push(model);
            fleet.len() - 1
        };
        let work = line.seconds(4, 86_400.0)?.unwrap_or(WORK);
        let next = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let key = line.cell(5);
        let key = key.map(|key| *keys.entry(key.to_owned()).or_insert(next));
        arrivals.push((at, model, work, key));
    }
    let last = arrivals.iter().map(|(at, ..)| *at).fold(0.0, f64::max);
    let mut trace = Workload::on(name, machine, fleet, last.max(1.0));
    for (at, model, work, key) in arrivals {
        trace.push(at, model, work, key);
    }
    trace.sort();
    Ok(trace)
}

/// The place of each cell among [`COLUMNS`].
fn header(line: Option<(usize, &str)>) -> Result<Vec<usize>, CsvError> {
    let Some((number, text)) = line else {
        let why = "the file is empty: begin with a header, as at,model,work".to_owned();
        return Err(CsvError { line: 1, why });
    };
    let wrong = |why: String| CsvError { line: number, why };
    let mut order = Vec::new();
    for name in text.split(',').map(str::trim) {
        let Some(column) = COLUMNS.iter().position(|column| *column == name) else {
            let known = COLUMNS.join(", ");
            return Err(wrong(format!(
                "the header names {name:?}, and the columns are {known}"
            )));
        };
        if order.contains(&column) {
            return Err(wrong(format!("the header names {name:?} twice")));
        }
        order.push(column);
    }
    for (column, name) in ["at", "model"].into_iter().enumerate() {
        if !order.contains(&column) {
            return Err(wrong(format!("the header lacks the column {name}")));
        }
    }
    Ok(order)
}

fn split<'a>(number: usize, text: &'a str, order: &[usize]) -> Result<Line<'a>, CsvError> {
    let mut line = Line {
        number,
        cells: vec![None; COLUMNS.len()],
    };
    let mut cells = text.split(',').map(str::trim);
    for column in order {
        let cell = cells.next();
        if let Some(place) = line.cells.get_mut(*column) {
            *place = cell;
        }
    }
    if cells.next().is_some() {
        let columns = order.len();
        return line.wrong(format!("there are more cells than the header's {columns}"));
    }
    Ok(line)
}

fn new_model(line: &Line<'_>, name: &str, machine: PlayedMachine) -> Result<Model, CsvError> {
    let weights = match line.cell(2).map(str::parse::<Bytes>) {
        None => WEIGHTS,
        Some(Ok(Bytes(bytes))) if bytes > 0 => bytes,
        Some(_) => return line.wrong("column weights: write a size, as 16GiB"),
    };
    let gpus = match line.cell(3).map(str::parse::<usize>) {
        None => 1,
        Some(Ok(gpus)) if (1..=machine.gpus).contains(&gpus) => gpus,
        Some(_) => {
            return line.wrong(format!(
                "column gpus: write a whole number from 1 to {}, the GPUs that there are (--gpus)",
                machine.gpus
            ));
        }
    };
    let model = Model::of_size(name, weights, gpus);
    if model.awake > machine.gpu_memory {
        return line.wrong(format!(
            "{name} takes {} of each of {}, and a GPU has {} (--gpu-memory)",
            Bytes(model.awake),
            counted(gpus, "GPU"),
            Bytes(machine.gpu_memory)
        ));
    }
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: PlayedMachine = PlayedMachine {
        gpus: 2,
        gpu_memory: 80 << 30,
        host_memory: 256 << 30,
    };

    fn fault(text: &str) -> String {
        trace("t", text, MACHINE).unwrap_err().to_string()
    }

    #[test]
    fn requests_are_read_in_any_order_of_lines_and_columns() {
        let text = "model,at,weights,key\n\n# a note\nb,5,8GiB,x\na,1,,\nb,2,64GiB,x\n";
        let trace = trace("t", text, MACHINE).unwrap();
        let at: Vec<f64> = trace.arrivals.iter().map(|arrival| arrival.at).collect();
        assert_eq!(at, [1.0, 2.0, 5.0]);
        assert_eq!(trace.fleet.len(), 2);
        assert_eq!(trace.fleet[0].weights, 8 << 30, "the first line counts");
        assert_eq!(trace.arrivals[0].key, None);
        assert_eq!(trace.arrivals[1].key, trace.arrivals[2].key);
    }

    #[test]
    fn each_fault_names_its_line_and_what_to_write() {
        let cases = [
            ("", "line 1: the file is empty"),
            ("at,modell\n", "line 1: the header names \"modell\""),
            ("at,at,model\n", "line 1: the header names \"at\" twice"),
            ("at,work\n", "line 1: the header lacks the column model"),
            ("at,model\n-1,a\n", "line 2: column at: write seconds"),
            ("at,model\n1,a\n2,\n", "line 3: column model"),
            ("at,model\n1,a,3\n", "line 2: there are more cells"),
            ("at,model,gpus\n1,a,3\n", "from 1 to 2"),
            (
                "at,model,weights\n1,a,9\u{df}\n",
                "column weights: write a size",
            ),
            (
                "at,model,weights\n1,a,100GiB\n",
                "takes 128GiB of each of 1 GPU",
            ),
            ("at,model,work\n1,a,x\n", "column work"),
        ];
        for (text, expected) in cases {
            let fault = fault(text);
            assert!(fault.contains(expected), "{text:?}: {fault}");
        }
    }
}
