//! Which revision a workload goes back to.
//!
//! The revisions of a Deployment or a Rollout are the ReplicaSets that it owns, each with its number
//! in an annotation. One that is taken up again gets the highest number, and the numbers it had are
//! kept beside it. What runs now is the one whose pod template is the workload's own, and what it
//! goes back to is the highest of the others: the second-highest, also while a controller has not
//! yet given the newest its number.

use serde_json::{Map, Value};

use super::{
    revision::{Picked, Running},
    workload::{Stop, short},
};

/// Where a kind of workload keeps what its revisions are known by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    /// The label that holds the hash of the pod template.
    pub(super) hash: &'static str,
    /// The annotation that holds the number.
    pub(super) number: &'static str,
    /// The annotation that holds the numbers it had before, with commas between.
    pub(super) numbers_before: &'static str,
}

/// A Deployment's.
pub(super) const DEPLOYMENT_MARKS: Marks = Marks {
    hash: "pod-template-hash",
    number: "deployment.kubernetes.io/revision",
    numbers_before: "deployment.kubernetes.io/revision-history",
};

/// An Argo Rollout's.
pub(super) const ROLLOUT_MARKS: Marks = Marks {
    hash: "rollouts-pod-template-hash",
    number: "rollout.argoproj.io/revision",
    numbers_before: "rollout.argoproj.io/revision-history",
};

/// One revision.
#[derive(Clone, Debug)]
pub(super) struct Revision {
    /// Its number.
    pub(super) number: u64,
    /// The first number it had.
    pub(super) number_first: u64,
    /// The hash of its pod template; empty when it has none.
    pub(super) hash: String,
    /// Its pod template without that hash.
    pub(super) template: Value,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    /// Go back to this.
    To(Revision),
    /// What was judged is gone already; in words.
    Done(String),
}

impl Revision {
    /// How it runs, as far as its own marks say.
    pub(super) fn running(&self) -> Running<'_> {
        let hash = (!self.hash.is_empty()).then_some(self.hash.as_str());
        Running { template: &self.template, hash, number: Some(self.number) }
    }
}

/// The revisions of the owner with this `uid` among ReplicaSets; those without a number are left
/// out, since no controller has taken them up.
pub(super) fn revisions(sets: &[Value], uid: &str, marks: Marks) -> Vec<Revision> {
    let is_owned = |set: &&Value| {
        let owners = set["metadata"]["ownerReferences"].as_array();
        owners.into_iter().flatten().any(|owner| owner["uid"].as_str() == Some(uid))
    };
    let one = |set: &Value| {
        let annotations = &set["metadata"]["annotations"];
        let number: u64 = annotations[marks.number].as_str()?.parse().ok()?;
        let before = annotations[marks.numbers_before].as_str().unwrap_or_default();
        let before = before.split(',').filter_map(|word| word.trim().parse().ok());
        let template = &set["spec"]["template"];
        let hash = template["metadata"]["labels"][marks.hash]
            .as_str()
            .or_else(|| set["metadata"]["labels"][marks.hash].as_str());
        Some(Revision {
            number,
            number_first: before.chain([number]).min().unwrap_or(number),
            hash: hash.unwrap_or_default().to_owned(),
            template: without_hash(template, marks),
        })
    };
    sets.iter().filter(is_owned).filter_map(one).collect()
}

/// A pod template without what its controller put into it.
pub(super) fn without_hash(template: &Value, marks: Marks) -> Value {
    let mut template = template.clone();
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        // `creationTimestamp: null` is there or not, as the server likes.
        metadata.retain(|key, value| !(key == "creationTimestamp" && value.is_null()));
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove(marks.hash);
        }
        metadata.retain(|_, value| !value.as_object().is_some_and(Map::is_empty));
    }
    template
}

/// The revision that runs: the one with this template (without its hash).
pub(super) fn current<'a>(revisions: &'a [Revision], template: &Value) -> Option<&'a Revision> {
    revisions.iter().filter(|found| found.template == *template).max_by_key(|found| found.number)
}

/// Decides where `what` goes back to, from a version that was judged.
///
/// # Errors
/// A refusal, when something else runs now, there is nothing to go back to, or what there is cannot
/// be told from what was judged.
pub(super) fn decide(
    what: &str,
    versions: Versions<'_>,
    revisions: &[Revision],
    template: &Value,
) -> Result<Undo, Stop> {
    let Versions { picked, canary, baseline } = versions;
    let now = current(revisions, template);
    let running = now.map_or(Running { template, hash: None, number: None }, Revision::running);
    if !picked.is(canary, running) {
        let is_older = |judged: &Revision| {
            picked.is(canary, judged.running())
                && now.is_some_and(|now| now.number_first < judged.number)
        };
        let words = format!("{what} runs {} now", running.words());
        return match picked.is(baseline, running) || revisions.iter().any(is_older) {
            true => Ok(Undo::Done(format!(
                "nothing to do: {words}, which is older than {}",
                short(canary)
            ))),
            false => Err(Stop::Refused(format!("{words}; {} was judged", short(canary)))),
        };
    }
    let others = revisions.iter().filter(|found| found.template != *template);
    let Some(before) = others.max_by_key(|found| found.number) else {
        return Err(Stop::Refused(format!("{what} has no revision to go back to")));
    };
    // Undone once, it would look as it does now, and a delivery that is repeated would redo it.
    if picked.is(canary, before.running()) {
        let words = before.running().words();
        return Err(Stop::Refused(format!(
            "{what} would go back to {words}, which is {} as well: name what was judged by the \
             hash of its pod template",
            short(canary)
        )));
    }
    Ok(Undo::To(before.clone()))
}

/// The versions of a release, and how they are found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Versions<'a> {
    /// By what they are found.
    pub(super) picked: &'a Picked,
    /// What was judged.
    pub(super) canary: &'a str,
    /// What it was compared with; empty when nothing was.
    pub(super) baseline: &'a str,
}

/// A label selector as a list asks for it: `app=shop,tier in (web,api)`.
///
/// # Errors
/// In words, when it is empty: it would be taken for everything.
pub(super) fn label_selector(selector: &Value) -> Result<String, String> {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    let expressions = expressions.filter_map(|one| {
        let key = one["key"].as_str()?;
        let values = one["values"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let values = values.collect::<Vec<_>>().join(",");
        match one["operator"].as_str()? {
            "In" => Some(format!("{key} in ({values})")),
            "NotIn" => Some(format!("{key} notin ({values})")),
            "Exists" => Some(key.to_owned()),
            "DoesNotExist" => Some(format!("!{key}")),
            _ => None,
        }
    });
    let parts: Vec<String> = labels.chain(expressions).collect();
    if parts.is_empty() { Err("it has no selector".to_owned()) } else { Ok(parts.join(",")) }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use serde_json::json;

    use super::*;

    fn template(version: &str) -> Value {
        json!({ "metadata": { "labels": { "app": "shop" } },
                "spec": { "containers": [{ "name": "app", "image": format!("shop:{version}") }] } })
    }

    /// `numbers`: the number now, after those it had before.
    fn set(version: &str, numbers: &[u64]) -> Value {
        let (now, before) = numbers.split_last().expect("a number");
        let before: Vec<String> = before.iter().map(u64::to_string).collect();
        let mut template = template(version);
        template["metadata"]["labels"]["pod-template-hash"] = json!(format!("hash-{version}"));
        template["metadata"]["creationTimestamp"] = Value::Null;
        json!({ "metadata": {
                    "annotations": { "deployment.kubernetes.io/revision": now.to_string(),
                                     "deployment.kubernetes.io/revision-history": before.join(",") },
                    "ownerReferences": [{ "uid": "u1", "controller": true }] },
                "spec": { "template": template } })
    }

    fn decided(sets: &[Value], now: &str, canary: &str, baseline: &str) -> Result<String, String> {
        let revisions = revisions(sets, "u1", DEPLOYMENT_MARKS);
        let versions = Versions { picked: &Picked::Auto, canary, baseline };
        match decide("deployment d", versions, &revisions, &template(now)) {
            Ok(Undo::To(found)) => {
                Ok(format!("to {}", found.template["spec"]["containers"][0]["image"]))
            }
            Ok(Undo::Done(words)) => Ok(words),
            Err(Stop::Refused(words)) => Err(words),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_second_highest_is_gone_back_to() {
        let sets = [set("v1", &[1]), set("v0", &[2]), set("v2", &[4]), set("v3", &[1, 3])];
        let check = |now: &str, canary: &str, baseline: &str, expected: Result<&str, &str>| {
            let found = decided(&sets, now, canary, baseline);
            match (&found, expected) {
                (Ok(found), Ok(word)) | (Err(found), Err(word)) => {
                    assert!(found.contains(word), "{now} {canary}: {found}");
                }
                _ => panic!("{now} {canary}: {found:?}, expected {expected:?}"),
            }
        };
        check("v2", "v2", "v1", Ok("to \"shop:v3\""));
        check("v2", "hash-v2", "", Ok("to \"shop:v3\""));
        check("v2", "4", "", Ok("to \"shop:v3\""));
        check("v2", "v3", "v1", Err("runs shop:v2 (revision 4, hash-v2) now; v3 was judged"));
        check("v2", "v1", "", Err("v1 was judged"));
        // Gone already, by us or by hand.
        check("v3", "v2", "v3", Ok("nothing to do"));
        check("v3", "v2", "", Ok("nothing to do"));
        check("v1", "v2", "", Ok("nothing to do"));
        // Set a moment ago, without a revision so far.
        check("v9", "v9", "", Ok("to \"shop:v2\""));
        check("v9", "v2", "v1", Err("runs shop:v9 now; v2 was judged"));
        let alone = decided(&[set("v1", &[1])], "v1", "v1", "");
        assert_eq!(alone, Err("deployment d has no revision to go back to".to_owned()));
    }

    #[test]
    fn a_version_that_both_have_is_not_undone() {
        let mut older = set("v2", &[1]);
        older["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{ "name": "A" }]);
        let found = decided(&[older.clone(), set("v2", &[2])], "v2", "v2", "");
        assert!(found.as_ref().is_err_and(|words| words.contains("v2 as well")), "{found:?}");
        let found = decided(&[older, set("v2", &[2])], "v2", "hash-v2", "");
        assert!(found.is_err(), "both sets have this hash: {found:?}");
    }

    #[test]
    fn sets_of_others_and_without_a_number_do_not_count() {
        let mut foreign = set("v7", &[7]);
        foreign["metadata"]["ownerReferences"][0]["uid"] = json!("u2");
        let mut fresh = set("v8", &[8]);
        fresh["metadata"]["annotations"] = json!({});
        let found = decided(&[set("v1", &[1]), set("v2", &[2]), foreign, fresh], "v2", "v2", "");
        assert_eq!(found, Ok("to \"shop:v1\"".to_owned()));
    }

    /// A Deployment through many releases and undos: whatever was done, an undo of what runs leads to
    /// what ran before it, and a second one of the same release does nothing.
    #[test]
    fn an_undo_leads_to_what_ran_before_and_only_once() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..200 {
            let mut numbers: Vec<(String, Vec<u64>)> = Vec::new();
            let mut ran: Vec<String> = Vec::new();
            let mut next = 1;
            let mut run = |version: String, numbers: &mut Vec<(String, Vec<u64>)>| {
                match numbers.iter_mut().find(|found| found.0 == version) {
                    Some(found) => found.1.push(next),
                    None => numbers.push((version, vec![next])),
                }
                next += 1;
            };
            for step in 0..random.random_range(2..12) {
                let fresh = format!("v{step}");
                let again = ran.get(random.random_range(0..ran.len().max(1))).cloned();
                let version = again.filter(|_| random.random_bool(0.3)).unwrap_or(fresh);
                if ran.last() == Some(&version) {
                    continue;
                }
                run(version.clone(), &mut numbers);
                ran.retain(|found| *found != version);
                ran.push(version);
            }
            let [.., before, now] = &ran[..] else { continue };
            let sets = |numbers: &[(String, Vec<u64>)]| -> Vec<Value> {
                numbers.iter().map(|(version, numbers)| set(version, numbers)).collect()
            };
            let found = decided(&sets(&numbers), now, now, "");
            assert_eq!(found, Ok(format!("to \"shop:{before}\"")), "{numbers:?}");
            run(before.clone(), &mut numbers);
            let again = decided(&sets(&numbers), before, now, before);
            assert!(again.as_ref().is_ok_and(|words| words.contains("nothing to do")), "{again:?}");
            let again = decided(&sets(&numbers), before, now, "");
            // Unless it was first released after what was judged had been released before.
            let first =
                |version: &str| numbers.iter().find(|it| it.0 == version).expect("ran").1[0];
            let last = |version: &str| {
                *numbers.iter().find(|it| it.0 == version).expect("ran").1.last().expect("one")
            };
            assert_eq!(again.is_ok(), first(before) < last(now), "{again:?} {numbers:?}");
        }
    }

    #[test]
    fn selectors_are_written_as_lists_ask_for_them() {
        let selector = json!({ "matchLabels": { "app": "shop", "tier": "web" },
            "matchExpressions": [
                { "key": "a", "operator": "In", "values": ["x", "y"] },
                { "key": "b", "operator": "NotIn", "values": ["z"] },
                { "key": "c", "operator": "Exists" }, { "key": "d", "operator": "DoesNotExist" }] });
        let expected = "app=shop,tier=web,a in (x,y),b notin (z),c,!d";
        assert_eq!(label_selector(&selector), Ok(expected.to_owned()));
        assert!(label_selector(&json!({})).is_err());
    }
}
