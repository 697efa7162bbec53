//! Shadows in a configuration: started, promoted and dropped by changing its text, which is then applied like any other.

use contract::document::{did_you_mean, pointer};
use serde_json::{Map, Value};

/// What is to become of the shadows beside a plugin's bindings.
#[derive(Debug, Clone)]
pub enum Change {
    /// Each binding gets one with these settings, in place of one that it has.
    Start(Map<String, Value>),
    /// What the shadow says is what the binding says from now on.
    Promote,
    Drop,
}

/// Of which bindings.
#[derive(Debug, Clone)]
pub struct Of {
    /// As the configuration calls it.
    pub plugin: String,
    /// Only the one there: a JSON pointer.
    pub at: Option<String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoShadow {
    #[error("the running configuration names no plugin `{0}`{hint}", hint = .1.as_ref().map_or(String::new(), |hint| format!("; {hint}")))]
    Plugin(String, Option<String>),
    #[error("no binding of `{0}` {1}")]
    Binding(String, String),
    #[error("no binding of `{0}` {1} has a shadow")]
    Shadow(String, String),
}

/// The settings of a binding that its shadow may have otherwise.
const SETTINGS: [&str; 3] = ["plugin", "config", "tables"];

/// The document with the change in it.
pub(super) fn changed(document: &str, of: &Of, change: &Change) -> Result<String, NoShadow> {
    let mut document: Value = serde_json::from_str(document).unwrap_or_default();
    named(&document, &of.plugin)?;
    let place = || of.at.as_ref().map_or_else(|| "in it".to_owned(), |at| format!("at `{at}`"));
    let (mut found, mut done) = (0, 0);
    each_chain(&mut document, |at, chain| {
        for (index, binding) in chain.iter_mut().enumerate() {
            let here = of.at.as_ref().is_none_or(|wanted| *wanted == pointer(at, index));
            if here && binding["plugin"] == of.plugin.as_str() {
                found += 1;
                done += usize::from(change.apply(binding));
            }
        }
    });
    match (found, done) {
        (0, _) => Err(NoShadow::Binding(of.plugin.clone(), format!("stands {}", place()))),
        (_, 0) => Err(NoShadow::Shadow(of.plugin.clone(), place())),
        _ => Ok(serde_json::to_string_pretty(&document).unwrap_or_default()),
    }
}

/// Whether the configuration knows the plugin.
pub(super) fn named(document: &Value, plugin: &str) -> Result<(), NoShadow> {
    if document["plugins"].get(plugin).is_some() {
        return Ok(());
    }
    let known: Vec<_> = document["plugins"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let given: String = plugin.chars().take(100).collect();
    let hint = did_you_mean(&given, &known);
    Err(NoShadow::Plugin(given, hint))
}

fn each_chain(document: &mut Value, mut act: impl FnMut(&str, &mut Vec<Value>)) {
    let mut chain_of = |at: String, place: &mut Value| {
        if let Some(chain) = place.get_mut("plugins").and_then(Value::as_array_mut) {
            act(&pointer(&at, "plugins"), chain);
        }
    };
    for (index, site) in document.get_mut("sites").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        chain_of(pointer("/sites", index), site);
    }
    let wide = document.get_mut("bindings").and_then(Value::as_array_mut);
    for (index, bindings) in wide.into_iter().flatten().enumerate() {
        chain_of(pointer("/bindings", index), bindings);
    }
    for (name, listener) in document.get_mut("listeners").and_then(Value::as_object_mut).into_iter().flatten() {
        chain_of(pointer("/listeners", name), listener);
    }
}

impl Change {
    /// False where there is nothing to change.
    fn apply(&self, binding: &mut Value) -> bool {
        let Some(binding) = binding.as_object_mut() else { return false };
        match self {
            Self::Start(settings) => {
                binding.insert("shadow".to_owned(), Value::Object(settings.clone()));
                true
            }
            Self::Drop => binding.remove("shadow").is_some(),
            Self::Promote => {
                let Some(Value::Object(mut shadow)) = binding.remove("shadow") else { return false };
                for name in SETTINGS {
                    if let Some(value) = shadow.remove(name) {
                        binding.insert(name.to_owned(), value);
                    }
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({
            "plugins": {"hsts": {"digest": "sha256:1"}, "next": {"digest": "sha256:2"}, "idle": {"digest": "sha256:3"}},
            "sites": [
                {"hosts": ["a.example"], "plugins": [{"plugin": "hsts", "config": {"max_age": 1}}]},
                {"hosts": ["b.example"], "plugins": [{"plugin": "next"}, {"plugin": "hsts", "config": {"max_age": 2}}]}
            ],
            "listeners": {"https": {"plugins": []}}
        })
    }

    fn change(document: &Value, at: Option<&str>, change: Change) -> Result<Value, NoShadow> {
        let of = Of { plugin: "hsts".into(), at: at.map(str::to_owned) };
        changed(&document.to_string(), &of, &change).map(|text| serde_json::from_str(&text).unwrap())
    }

    fn start(settings: Value) -> Change {
        let Value::Object(settings) = settings else { panic!("an object") };
        Change::Start(settings)
    }

    #[test]
    fn a_promoted_shadow_takes_the_place_of_its_binding() {
        let started = change(&document(), None, start(json!({"plugin": "next", "percent": 5}))).unwrap();
        assert_eq!(started["sites"][1]["plugins"][1]["shadow"], json!({"plugin": "next", "percent": 5}));
        let promoted = change(&started, Some("/sites/1/plugins/1"), Change::Promote).unwrap();
        assert_eq!(promoted["sites"][1]["plugins"][1], json!({"plugin": "next", "config": {"max_age": 2}}));
        assert_eq!(promoted["sites"][0], started["sites"][0], "only there");
        let dropped = change(&promoted, None, Change::Drop).unwrap();
        assert_eq!(dropped["sites"][0], document()["sites"][0]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let says = |result: Result<Value, NoShadow>| result.unwrap_err().to_string();
        assert_eq!(says(change(&document(), None, Change::Drop)), "no binding of `hsts` in it has a shadow");
        assert_eq!(
            says(change(&document(), Some("/sites/1/plugins/0"), Change::Promote)),
            "no binding of `hsts` stands at `/sites/1/plugins/0`"
        );
        let none = changed("{}", &Of { plugin: "x".into(), at: None }, &Change::Drop);
        assert_eq!(none.unwrap_err().to_string(), "the running configuration names no plugin `x`");
        let of = Of { plugin: "idle".into(), at: None };
        let unbound = changed(&document().to_string(), &of, &Change::Drop);
        assert_eq!(unbound.unwrap_err().to_string(), "no binding of `idle` stands in it");
    }
}
