//! What local use would have cost elsewhere: a list of prices, and the sums they make. Prices are applied when a
//! question is asked, so that a new list holds for everything ever recorded.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::limits::PRICE_FILE_BYTES_MAX;
use crate::record::sums::Sums;

/// The list of `MODEL_PRICES`.
#[derive(Clone, Debug, PartialEq)]
pub struct Prices {
    currency: String,
    models: Vec<(String, Price)>,
}

/// What a million tokens cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Of the prompt.
    pub input: f64,
    /// Of the prompt, where they came from a cache.
    pub cached_input: f64,
    /// Of the answer.
    pub output: f64,
}

/// Why a list cannot be used, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceError(String);

impl fmt::Display for PriceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PriceError {}

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
    output: f64,
    #[serde(default, rename = "source")]
    _source: Option<String>,
}

impl Prices {
    /// Reads the list at `path`.
    pub fn load(path: &Path) -> Result<Prices, PriceError> {
        let bad = |what: String| PriceError(format!("MODEL_PRICES is {}: {what}", path.display()));
        let mut text = String::new();
        let file = File::open(path).map_err(|e| bad(format!("it cannot be read ({e})")))?;
        let read = file.take(PRICE_FILE_BYTES_MAX + 1).read_to_string(&mut text);
        match read {
            Err(e) => return Err(bad(format!("it cannot be read ({e})"))),
            Ok(bytes) if bytes as u64 > PRICE_FILE_BYTES_MAX => {
                return Err(bad(format!("it has more than {PRICE_FILE_BYTES_MAX} bytes")));
            }
            Ok(_) => {}
        }
        Prices::parse(&text).map_err(bad)
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
        for ListedModel { model, input, cached_input, output, .. } in listed.models {
            if model.is_empty() {
                return Err("a model takes a name, or a pattern with * and ?".to_owned());
            }
            let price = Price { input, cached_input: cached_input.unwrap_or(input), output };
            let told = [("input", price.input), ("cached_input", price.cached_input), ("output", price.output)];
            if let Some((name, value)) = told.iter().find(|(_, value)| !(0.0..=1e9).contains(value)) {
                return Err(format!("{name} of the model {model:?} is {value}: it takes a price from 0 to 1e9"));
            }
            models.push((model.to_lowercase(), price));
        }
        Ok(Prices { currency: listed.currency, models })
    }

    /// The name of the money.
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// The price of a model: that of the first pattern that it fits, without regard to case.
    pub fn of(&self, model: &str) -> Option<Price> {
        let model = model.to_lowercase();
        self.models.iter().find(|(pattern, _)| fits(pattern, &model)).map(|(_, price)| *price)
    }
}

impl Price {
    /// What these sums cost. Cached tokens are part of the prompt's; a count that nobody told costs nothing.
    pub fn of_sums(&self, sums: &Sums) -> f64 {
        self.cost(sums.input.sum, sums.cached.sum, sums.output.sum)
    }

    /// What these tokens cost.
    pub fn cost(&self, input: i64, cached: i64, output: i64) -> f64 {
        let millionths =
            (input - cached) as f64 * self.input + cached as f64 * self.cached_input + output as f64 * self.output;
        millionths / 1e6
    }
}

/// Whether `text` fits a pattern in which `*` stands for anything and `?` for one character.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last star stands, and how much it has taken so far: only that one ever needs to take more.
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
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
            {"model": "*", "input": 1, "output": 4}]}"#;
        let prices = Prices::parse(list).expect("a list");
        let cost = |model: &str| prices.of(model).map(|price| price.cost(1_000_000, 400_000, 100_000));
        assert_eq!(cost("BIG-model"), Some(0.6 * 2.0 + 0.4 * 0.5 + 1.0));
        assert_eq!(cost("small"), Some(1.4));
        assert_eq!(prices.currency(), "USD");
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
        check(r#"{"currency": "USD", "models": [{"model": "", "input": 1, "output": 1}]}"#, "a model takes");
        let missing = Prices::load(Path::new("/nowhere/prices.json")).expect_err("missing").to_string();
        assert!(missing.starts_with("MODEL_PRICES is /nowhere/prices.json: it cannot be read"), "{missing}");
    }

    #[test]
    fn the_example_is_a_list() {
        assert!(Prices::parse(include_str!("../../model-prices.example.json")).is_ok());
    }
}
