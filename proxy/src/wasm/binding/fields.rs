//! What of a request or response a plugin asks for.

use super::Binding;
use super::about::About;
use crate::wasm::guest::control;
use crate::wasm::planning::Named;
use crate::wasm::types::{Class, Fault};
use crate::wasm::verify;

/// A header field that the plugin asked for, by lower-case name.
pub(super) enum Field {
    Request(String),
    Response(String),
    /// What is found in the first of these datasets that has something.
    Found(Vec<usize>),
}

pub(super) fn wants(class: Class, fields: Vec<control::Field>, datasets: &[Named]) -> Result<Vec<Field>, Fault> {
    verify::wants_count(fields.len())?;
    let place = |name: String| match datasets.iter().position(|(known, _)| *known == name) {
        Some(place) => Ok(place),
        None => Err(Fault::Output(format!("plan wants a dataset `{}` that it has not made", verify::shown(&name, 64)))),
    };
    let field = |field| match field {
        control::Field::Found(names) => {
            verify::found(&names)?;
            Ok(Field::Found(names.into_iter().map(place).collect::<Result<_, _>>()?))
        }
        _ if class == Class::Connection => {
            Err(Fault::Output("plan of a connection plugin wants a header field; there is none".to_owned()))
        }
        control::Field::RequestHeader(name) => verify::name(name).map(Field::Request),
        control::Field::ResponseHeader(name) => verify::name(name).map(Field::Response),
    };
    fields.into_iter().map(field).collect()
}

impl Binding {
    pub(super) fn wanted<'a>(&'a self, about: About<'a>) -> Vec<Option<&'a [u8]>> {
        let value = |field: &Field| match (field, about) {
            (Field::Request(name), About::Request(request) | About::Response(request, _)) => request.header(name),
            (Field::Response(name), About::Response(_, response)) => response.header(name),
            (Field::Found(datasets), about) => datasets.iter().find_map(|dataset| {
                let (_, dataset) = self.planned.datasets.get(*dataset)?;
                about
                    .subject(dataset.subject())
                    .and_then(|wanted| dataset.find(wanted))
                    .map(|entry| dataset.value(entry))
            }),
            _ => None,
        };
        self.planned.wants.iter().map(value).collect()
    }

    /// The calls of connection plugins take their lists this way.
    pub(super) fn owned(&self, about: About<'_>) -> Vec<Option<Vec<u8>>> {
        self.wanted(about).into_iter().map(|value| value.map(<[u8]>::to_vec)).collect()
    }

    pub(super) fn found_something(&self, wanted: &[Option<&[u8]>]) -> bool {
        self.planned.wants.iter().zip(wanted).any(|(field, value)| matches!(field, Field::Found(_)) && value.is_some())
    }
}
