//! Networks that are too many for a configuration: one a line, from a table that was uploaded apart.

use latchkey_sdk::config::{Value, brief};
use latchkey_sdk::datasets::{Dataset, Entry, Kind, Reason, Subject, Table};

/// All at once would be no help.
const FAULTS_MAX: usize = 20;

/// By the address of the client that the header names, or of who dialled where none does.
pub(crate) fn read(value: &Value<'_>) -> Option<Dataset> {
    let name = value.text()?;
    let Some(table) = Table::open(name) else {
        let hint =
            "upload it with `latchkey table push`, name it in `tables`, and in the binding's `tables`".to_owned();
        return value.refuse(format!("no table `{}` is granted to this binding", brief(name)), hint);
    };
    let dataset = Dataset::new("deny", Kind::Cidr, Subject::Client);
    let (mut line, mut faults) = (0, 0);
    loop {
        let chunk = table.lines();
        if chunk.is_empty() {
            break;
        }
        let text = String::from_utf8_lossy(&chunk);
        let (mut entries, mut places) = (Vec::new(), Vec::new());
        for text in text.lines() {
            line += 1;
            let network = text.split('#').next().unwrap_or_default().trim();
            if !network.is_empty() {
                entries.push(Entry { key: network.to_owned(), value: Vec::new() });
                places.push(line);
            }
        }
        for refusal in dataset.add(&entries) {
            let Reason::Illegal(says) = refusal.why else { continue };
            faults += 1;
            if faults <= FAULTS_MAX {
                let line = places.get(refusal.entry as usize).copied().unwrap_or_default();
                value.refuse::<()>(format!("line {line} of table `{}`: {says}", brief(name)), None);
            }
        }
    }
    (faults == 0).then_some(dataset)
}
