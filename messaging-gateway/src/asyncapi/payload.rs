//! What an event of a model looks like, as a JSON Schema: made from that of the model itself.

use messaging_core::DescribedModel;
use serde_json::{Map, Value, json};

use super::names::plain;

/// The payload's schema, and the schemas that it refers to, by their names among the document's components.
pub(super) fn of_model(model: &DescribedModel, name: &str) -> (Value, Vec<(String, Value)>) {
    let mut schemas = Vec::new();
    let mut whole = model.schema.clone();
    if let Some(Value::Object(schema)) = &mut whole {
        // A document has its own notion of the root, so nothing can be left below `$defs`.
        schema.remove("$schema");
        if let Some(Value::Object(definitions)) = schema.remove("$defs") {
            schemas.extend(definitions.into_iter().map(|(key, value)| (component(name, &key), value)));
        }
    }
    let payload = match (model.envelope, &whole) {
        (Some(resource), whole) => envelope(resource, &model.payload, whole.as_ref()),
        (None, Some(whole)) if covers(whole, &model.payload) => whole.clone(),
        (None, whole) => part(&model.payload, whole.as_ref()),
    };
    let mut payload = payload;
    let mut is_recursive = point_to_components(&mut payload, name);
    for (_, schema) in &mut schemas {
        is_recursive |= point_to_components(schema, name);
    }
    // Only then: it shows fields too that no event carries.
    if let Some(mut whole) = whole.filter(|_| is_recursive) {
        point_to_components(&mut whole, name);
        schemas.push((name.to_owned(), whole));
    }
    (payload, schemas)
}

fn component(model: &str, definition: &str) -> String {
    format!("{model}.{}", plain(definition))
}

/// Whether the payload is the whole model.
fn covers(whole: &Value, paths: &[&str]) -> bool {
    match whole["properties"].as_object() {
        Some(properties) => properties.keys().all(|property| paths.contains(&property.as_str())),
        None => true,
    }
}

/// A payload of some fields.
fn part(paths: &[&str], whole: Option<&Value>) -> Value {
    let property = |path: &str| whole.map_or(Value::Null, |whole| whole["properties"][path].clone());
    let properties = paths.iter().map(|path| {
        let schema = match property(path) {
            Value::Null => json!({}),
            schema => schema,
        };
        ((*path).to_owned(), schema)
    });
    let mut schema = json!({ "type": "object", "properties": properties.collect::<Map<_, _>>() });
    if let Some(Value::Array(required)) = whole.map(|whole| &whole["required"]) {
        let is_there = |field: &&Value| field.as_str().is_some_and(|field| paths.contains(&field));
        schema["required"] = required.iter().filter(is_there).cloned().collect();
    }
    schema
}

/// The payload of `envelope = …`.
fn envelope(resource: &str, paths: &[&str], whole: Option<&Value>) -> Value {
    let metadata: Vec<&str> = paths.iter().filter_map(|path| path.strip_prefix("metadata.")).collect();
    json!({
        "type": "object",
        "required": ["event_type", "resource_type", "resource_id", "tenant_id", "timestamp", "metadata"],
        "properties": {
            "event_type": { "type": "string", "enum": ["create", "update", "delete"] },
            "resource_type": { "type": "string", "const": resource },
            "resource_id": { "type": "string" },
            "tenant_id": { "type": ["string", "null"] },
            "timestamp": { "type": "string", "format": "date-time" },
            "metadata": part(&metadata, whole),
            "previous": { "type": "object", "description": "What an update has changed, as it was before." },
        },
    })
}

/// Rewrites references into the model's own schema. Returns whether there was one to the schema as a whole, which here is
/// not the root of the document.
fn point_to_components(schema: &mut Value, model: &str) -> bool {
    let mut is_recursive = false;
    match schema {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get_mut("$ref") {
                if let Some(definition) = reference.strip_prefix("#/$defs/") {
                    // A JSON pointer in the fragment of a URI.
                    let definition = percent_encoding::percent_decode_str(definition).decode_utf8_lossy();
                    let definition = definition.replace("~1", "/").replace("~0", "~");
                    *reference = format!("#/components/schemas/{}", component(model, &definition));
                } else if reference == "#" {
                    *reference = format!("#/components/schemas/{model}");
                    is_recursive = true;
                }
            }
            for value in members.values_mut() {
                is_recursive |= point_to_components(value, model);
            }
        }
        Value::Array(items) => {
            for value in items {
                is_recursive |= point_to_components(value, model);
            }
        }
        _ => {}
    }
    is_recursive
}
