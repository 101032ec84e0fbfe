//! Keys of a message that its reader may skip: they begin with `?`.

use serde_json::Value;

/// Whether a message may have such keys. It tells most messages, which have none, at no cost.
pub(super) fn mentioned(text: &[u8]) -> bool {
    text.windows(2).any(|pair| pair == b"\"?")
}

/// Removes the optional keys. This revision knows none, so it skips all of them.
///
/// The keys of `entries` are the names of a state's tensors and stay.
pub(super) fn skip(message: &mut Value) {
    match message {
        Value::Object(object) => {
            object.retain(|key, _| !key.starts_with('?'));
            for (key, value) in object {
                match value {
                    Value::Object(tensors) if key == "entries" => {
                        tensors.values_mut().for_each(skip);
                    }
                    value => skip(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(skip),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload;
    use crate::context::Request;
    use crate::method::Plan;
    use crate::plugin::messages::{Answer, Call, ToHost};

    fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
        payload::read(text.as_bytes(), vec![0; 8]).map_err(|e| e.to_string())
    }

    #[test]
    fn a_key_that_may_be_skipped_is_and_any_other_is_refused_by_name() {
        let plan = r#"{"answer": {"plan": {"epochs": 1, "batch_size": 2, "view": "test"KEY}}}"#;
        let with = |key: &str| read::<ToHost>(&plan.replace("KEY", key));
        let expected = ToHost::Answer(Answer::Plan(Plan::epochs(1, 2, crate::data::View::Test)));
        assert_eq!(with(r#", "?hint": {"lr": [0.1]}"#).as_ref(), Ok(&expected));
        assert_eq!(with("").as_ref(), Ok(&expected), "what is missing has its default");
        let error = with(r#", "?hint": 1, "repeats": 3"#).expect_err("it must be understood");
        assert!(error.contains("unknown field `repeats`"), "{error}");
    }

    #[test]
    fn it_is_so_at_every_place_of_a_message_and_in_both_directions() {
        let draw = r#"{"draw": {"name": "a", "shape": [2], "law": "normal", "seed": 1}}"#;
        let error = read::<Request>(draw).expect_err("it must be understood");
        assert!(error.contains("unknown field `seed`"), "{error}");
        assert!(read::<Request>(&draw.replace("seed", "?seed")).is_ok());
        let check = r#"{"check": {"scenario": {"classes": 4, "?names": []}, "?strict": true}}"#;
        assert!(read::<Call>(check).is_ok());
        let error = read::<Call>(&check.replace("?strict", "strict")).expect_err("not known");
        assert!(error.contains("unknown field `strict`"), "{error}");
    }

    #[test]
    fn a_tensor_whose_name_begins_so_is_no_key() {
        let entry = r#"{"kind": "buffer", "value": {"element": "f32", "shape": [2], "offset": 0}}"#;
        let state = format!(r#"{{"state": {{"entries": {{"?a": {entry}}}}}}}"#);
        let Ok(Answer::State(state)) = read(&state) else { panic!("a state") };
        assert!(state.get("?a").is_some());
    }
}
