//! What local use would have cost elsewhere: a list of prices, and the sums they make. Prices are applied when a
//! question is asked, so that a new list holds for everything ever recorded.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::answers::{Cost, RequestRow};
use super::filter::shown;
use crate::limits::PRICE_FILE_BYTES_MAX;
use crate::packs::sums::{Figure, Sums};

/// So many models of the list are named to who asks for one that it does not have.
const NAMES_SHOWN: usize = 8;
/// So many are told to the page, which lets one of them be chosen.
const NAMES_TOLD: usize = 100;

/// The list of `MODEL_PRICES`.
#[derive(Clone, Debug, PartialEq)]
pub struct Prices {
    currency: String,
    models: Vec<(String, Price)>,
    /// What every model is priced as, where that was asked for.
    all_as: Option<Price>,
}

/// What a million tokens cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Of the prompt.
    pub input: f64,
    /// Of the prompt, where they came from a cache.
    pub cached_input: f64,
    /// Of the prompt, where they were written to a cache.
    pub cache_write: f64,
    /// Of the answer.
    pub output: f64,
}

/// The file. Unknown members are refused: a misspelt price would be a wrong sum.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    currency: String,
    /// Where and when the prices were read; for whoever reads the file.
    #[serde(default, rename = "source")]
    _source: Option<String>,
    #[serde(default, rename = "date")]
    _date: Option<String>,
    models: Vec<ListedModel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListedModel {
    model: String,
    input: f64,
    cached_input: Option<f64>,
    cache_write: Option<f64>,
    output: f64,
    #[serde(default, rename = "source")]
    _source: Option<String>,
}

impl Prices {
    /// Reads the list at `path`; else says in one line what is wrong with it.
    pub fn load(path: &Path) -> Result<Prices, String> {
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(PRICE_FILE_BYTES_MAX + 1).read_to_string(&mut text));
        let prices = match read {
            Err(e) => Err(format!("it cannot be read ({e})")),
            Ok(bytes) if bytes as u64 > PRICE_FILE_BYTES_MAX => {
                Err(format!("it has more than {PRICE_FILE_BYTES_MAX} bytes"))
            }
            Ok(_) => Prices::parse(&text),
        };
        prices.map_err(|what| format!("MODEL_PRICES is {}: {what}", path.display()))
    }

    /// Reads a list; else says what is wrong with it.
    pub fn parse(text: &str) -> Result<Prices, String> {
        let listed: Listed = serde_json::from_str(text).map_err(|e| format!("it is no list of prices: {e}"))?;
        let currency_is_good = (1..=8).contains(&listed.currency.len())
            && listed.currency.chars().all(|c| c.is_alphanumeric() || "$€£¥".contains(c));
        if !currency_is_good {
            return Err("currency takes a name as USD or EUR".to_owned());
        }
        let mut models = Vec::with_capacity(listed.models.len());
        for ListedModel { model, input, cached_input, cache_write, output, .. } in listed.models {
            if model.is_empty() {
                return Err("a model takes a name, or a pattern with * and ?".to_owned());
            }
            let (cached_input, cache_write) = (cached_input.unwrap_or(input), cache_write.unwrap_or(input));
            let told =
                [("input", input), ("cached_input", cached_input), ("cache_write", cache_write), ("output", output)];
            if let Some((name, value)) = told.iter().find(|(_, value)| !(0.0..=1e9).contains(value)) {
                return Err(format!("{name} of the model {model:?} is {value}: it takes a price from 0 to 1e9"));
            }
            models.push((model.to_lowercase(), Price { input, cached_input, cache_write, output }));
        }
        Ok(Prices { currency: listed.currency, models, all_as: None })
    }

    /// The name of the money.
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// The price of a model: that of the first pattern that it fits, without regard to case.
    pub fn of(&self, model: &str) -> Option<Price> {
        self.all_as.or_else(|| self.listed(&model.to_lowercase(), |_| true))
    }

    /// A list by which every model costs what this one does. An error says that there is no such model, and names some.
    pub fn all_as(&self, model: &str) -> Result<Prices, String> {
        let name = model.to_lowercase();
        let exact = self.models.iter().find(|(pattern, _)| *pattern == name).map(|(_, price)| *price);
        // What fits anything fits also what was misspelt.
        let price = exact.or_else(|| self.listed(&name, |pattern| pattern.chars().any(|c| c != '*' && c != '?')));
        let unknown = || {
            let names: Vec<&str> = self.models.iter().map(|(pattern, _)| pattern.as_str()).take(NAMES_SHOWN).collect();
            let more = if self.models.len() > names.len() { " and others" } else { "" };
            format!("as is {}: MODEL_PRICES has no such model; it has {}{more}.", shown(model), names.join(", "))
        };
        Ok(Prices { all_as: Some(price.ok_or_else(unknown)?), ..self.clone() })
    }

    /// The models that it names, and not only by a pattern; the first of many.
    pub fn names(&self) -> Vec<String> {
        let named = self.models.iter().map(|(pattern, _)| pattern).filter(|pattern| !pattern.contains(['*', '?']));
        named.take(NAMES_TOLD).cloned().collect()
    }

    /// What every model is priced as, where that was asked for.
    pub fn asked_as(&self) -> Option<Price> {
        self.all_as
    }

    fn listed(&self, model: &str, takes: impl Fn(&str) -> bool) -> Option<Price> {
        self.models.iter().find(|(pattern, _)| takes(pattern) && fits(pattern, model)).map(|(_, price)| *price)
    }

    /// A cost as answers tell it.
    pub fn told(&self, cost: Option<f64>) -> Cost {
        // Never below zero: sums of differences may leave a trace, and rows of former versions more in the cache than
        // in the prompt.
        let rounded = |cost: f64| ((cost * 1e6).round() / 1e6).max(0.0);
        Cost { cost: cost.map(rounded), currency: self.currency.clone() }
    }

    /// What a request would have cost.
    pub fn of_row(&self, row: &RequestRow) -> Cost {
        let counts = [row.input_tokens, row.cached_tokens, row.cache_write_tokens, row.output_tokens];
        let price = self.of(&row.model).filter(|_| row.input_tokens.is_some() || row.output_tokens.is_some());
        self.told(price.map(|price| price.of_request(counts)))
    }
}

impl Price {
    /// What these sums cost. A count that nobody told costs nothing. Sums of one range may be taken away from another's, so
    /// nothing is rounded here.
    pub fn of_sums(&self, sums: &Sums) -> f64 {
        let [input, cached, cache_write, output] =
            [Figure::Input, Figure::Cached, Figure::CacheWrite, Figure::Output].map(|figure| sums[figure].sum);
        self.cost(input, cached, cache_write, output)
    }

    /// What one request costs, by its counts of input, cache, writing to it, and output; unknown is nothing. Parts are no
    /// more than the whole, which rows of former versions do not hold.
    pub fn of_request(&self, counts: [Option<i64>; 4]) -> f64 {
        let [input, cached, cache_write, output] = counts.map(Option::unwrap_or_default);
        self.cost(input.max(cached + cache_write), cached, cache_write, output)
    }

    /// What the cache had and what was written to it are parts of the input.
    fn cost(&self, input: i64, cached: i64, cache_write: i64, output: i64) -> f64 {
        let millionths = (input - cached - cache_write) as f64 * self.input
            + cached as f64 * self.cached_input
            + cache_write as f64 * self.cache_write
            + output as f64 * self.output;
        millionths / 1e6
    }
}

/// Whether `text` fits a pattern in which `*` stands for anything and `?` for one character.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let begins = |text: &[char], part: &[char]| {
        text.len() >= part.len() && text.iter().zip(part).all(|(c, wanted)| *wanted == '?' || wanted == c)
    };
    let mut parts = pattern.split(|c| *c == '*');
    let first = parts.next().unwrap_or_default();
    let Some(last) = parts.next_back() else { return text.len() == first.len() && begins(&text, first) };
    if !begins(&text, first) {
        return false;
    }
    // A star need take no more than up to the first place where what is behind it fits.
    let mut from = first.len();
    for part in parts {
        let Some(at) = (from..=text.len()).find(|at| begins(&text[*at..], part)) else { return false };
        from = at + part.len();
    }
    text.len() >= from + last.len() && begins(&text[text.len() - last.len()..], last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_globs_do() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        };
        check("*", "", true);
        check("gpt-4o", "gpt-4o", true);
        check("gpt-4o", "gpt-4o-mini", false);
        check("gpt-4o*", "gpt-4o-mini", true);
        check("*qwen*7b*", "qwen/qwen2.5-7b-instruct", true);
        check("*qwen*7b", "qwen2.5-7b-7", false);
        check("?b", "7b", true);
        check("?b", "b", false);
        check("*aab", "aaaaab", true);
        check("", "a", false);
    }

    #[test]
    fn the_first_pattern_that_fits_counts_and_cached_tokens_have_their_price() {
        let list = r#"{"currency": "USD", "models": [
            {"model": "Big*", "input": 2, "cached_input": 0.5, "output": 10},
            {"model": "written", "input": 2, "cache_write": 3, "output": 10},
            {"model": "*", "input": 1, "output": 4}]}"#;
        let prices = Prices::parse(list).expect("a list");
        let counts = [1_000_000, 400_000, 100_000, 100_000].map(Some);
        let cost = |model: &str| prices.of(model).map(|price| price.of_request(counts));
        assert_eq!(cost("BIG-model"), Some(0.6 * 2.0 + 0.4 * 0.5 + 1.0));
        assert_eq!(cost("written"), Some(0.9 * 2.0 + 0.1 * 3.0 + 1.0));
        assert_eq!(cost("small"), Some(1.4));
        assert_eq!(prices.currency(), "USD");
    }

    #[test]
    fn all_models_cost_what_one_of_the_list_does() {
        let list = r#"{"currency": "USD", "models": [
            {"model": "gpt*", "input": 2, "output": 10},
            {"model": "gpt-mini", "input": 1, "output": 5},
            {"model": "*", "input": 7, "output": 70}]}"#;
        let prices = Prices::parse(list).expect("a list");
        let check = |name: &str, input: f64| {
            let all = prices.all_as(name).expect("it is listed");
            assert_eq!(all.of("anything").map(|price| price.input), Some(input), "{name}");
            assert_eq!(all.currency(), "USD");
        };
        check("gpt-4o", 2.0);
        check("GPT*", 2.0);
        // Named itself, it counts before a pattern that stands before it.
        check("gpt-mini", 1.0);
        check("*", 7.0);
        let error = prices.all_as("claude\n").expect_err("it is not listed");
        assert_eq!(error, "as is \"claude\\n\": MODEL_PRICES has no such model; it has gpt*, gpt-mini, *.");
    }

    #[test]
    fn no_request_costs_less_than_nothing() {
        let price = Price { input: 3.0, cached_input: 0.3, cache_write: 3.75, output: 15.0 };
        for counts in [[Some(4), Some(27_904)], [None, Some(9)], [Some(0), Some(1)]] {
            assert!(price.of_request([counts[0], counts[1], Some(7), None]) > 0.0, "{counts:?}");
        }
        assert_eq!(price.of_request([None; 4]), 0.0);
    }

    #[test]
    fn a_bad_list_says_what_is_wrong() {
        let check = |text: &str, words: &str| {
            let error = Prices::parse(text).expect_err(text);
            assert!(error.contains(words) && !error.contains('\n'), "{error}");
        };
        check("", "no list of prices");
        check(r#"{"models": []}"#, "missing field `currency`");
        check(r#"{"currency": "", "models": []}"#, "currency takes");
        check(r#"{"currency": "USD", "models": [{"model": "a", "input": 1}]}"#, "missing field `output`");
        check(r#"{"currency": "USD", "models": [{"model": "a", "inptu": 1, "output": 1}]}"#, "unknown field `inptu`");
        check(
            r#"{"currency": "USD", "models": [{"model": "a", "input": -1, "output": 1}]}"#,
            "input of the model \"a\"",
        );
        check(
            r#"{"currency": "USD", "models": [{"model": "a", "input": 1, "cache_write": -1, "output": 1}]}"#,
            "cache_write of the model \"a\"",
        );
        check(r#"{"currency": "USD", "models": [{"model": "", "input": 1, "output": 1}]}"#, "a model takes");
        let missing = Prices::load(Path::new("/nowhere/prices.json")).expect_err("missing");
        assert!(missing.starts_with("MODEL_PRICES is /nowhere/prices.json: it cannot be read"), "{missing}");
    }

    #[test]
    fn the_example_is_a_list() {
        assert!(Prices::parse(include_str!("../../model-prices.example.json")).is_ok());
    }
}
