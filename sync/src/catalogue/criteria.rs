//! What of a source is wanted here.

use crate::adapter::Criteria;
use crate::name::UpdateId;
use crate::taxonomy::{Classification, Language, Product};
use crate::update::{Kind, Update};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Whether an update is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is.
    Inside,
    /// It is not.
    Outside,
    /// It does not say what it would be judged by, as parts of bundles do: it is wanted if something that
    /// is wanted needs it.
    Unclear,
}

/// Judges updates by criteria, with what is known of products.
pub(super) struct Judge {
    criteria: Arc<Criteria>,
    /// The wanted products and families, in lower case.
    wanted: BTreeSet<String>,
    /// Whether a product is wanted, by its id.
    products: HashMap<String, bool>,
}

impl Judge {
    pub fn new<'a>(criteria: Arc<Criteria>, known: impl Iterator<Item = &'a Product>) -> Self {
        let wanted = criteria.products.iter().map(|name| name.to_lowercase()).collect();
        let mut judge = Self { criteria, wanted, products: HashMap::new() };
        known.for_each(|product| judge.learn(product));
        judge
    }

    /// Takes notice of a product.
    pub fn learn(&mut self, product: &Product) {
        let names = [&product.id, &product.name, &product.family];
        let is_wanted = names.iter().any(|name| self.wanted.contains(&name.to_lowercase()));
        self.products.insert(product.id.clone(), is_wanted);
    }

    /// Whether an update is wanted. Categories and detectoids always are: others need them. One that is for
    /// several products is, if one of them is.
    pub fn fit<'a>(
        &self,
        kind: Kind,
        classification: Option<Classification>,
        products: impl IntoIterator<Item = &'a str>,
    ) -> Fit {
        if matches!(kind, Kind::Category | Kind::Detectoid) {
            return Fit::Inside;
        }
        let by_class = match classification {
            _ if self.criteria.classifications.is_empty() => Fit::Inside,
            Some(class) if self.criteria.classifications.contains(&class) => Fit::Inside,
            Some(_) => Fit::Outside,
            None => Fit::Unclear,
        };
        let mut products = products.into_iter().peekable();
        let by_product = if self.wanted.is_empty() {
            Fit::Inside
        } else if products.peek().is_none() {
            Fit::Unclear
        } else if products.any(|id| self.wants(id)) {
            Fit::Inside
        } else {
            Fit::Outside
        };
        match (by_class, by_product) {
            (Fit::Outside, _) | (_, Fit::Outside) => Fit::Outside,
            (Fit::Unclear, _) | (_, Fit::Unclear) => Fit::Unclear,
            (Fit::Inside, Fit::Inside) => Fit::Inside,
        }
    }

    fn wants(&self, product: &str) -> bool {
        let known = self.products.get(product).copied();
        known.unwrap_or_else(|| self.wanted.contains(&product.to_lowercase()))
    }

    /// Takes away texts and files in languages that are not wanted. One text stays in any case.
    pub fn trim(&self, update: &mut Update) {
        if self.criteria.languages.is_empty() {
            return;
        }
        let wanted = |language: &Language| self.speaks(language);
        if update.texts.keys().any(wanted) {
            update.texts.retain(|language, _| wanted(language));
        } else if let Some(text) = update.text(&[]).cloned() {
            update.texts.retain(|_, other| *other == text);
        }
        update.items.retain(|item| item.languages.is_empty() || item.languages.iter().any(wanted));
        for item in &mut update.items {
            item.files.retain(|file| file.language.as_ref().is_none_or(wanted));
        }
    }

    /// Whether a language is wanted: `pt` wants `pt-br` too (RFC 4647, section 3.3.1).
    fn speaks(&self, language: &Language) -> bool {
        self.criteria.languages.iter().any(|range| {
            let rest = language.as_str().strip_prefix(range.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
    }
}

/// The updates that an update needs: parts of it, and what must be there before it.
pub(super) fn needs(update: &Update) -> impl Iterator<Item = UpdateId> {
    let groups = update.bundles.iter().chain(&update.prerequisites);
    groups.flat_map(|group| group.ids.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::{File, Item, Text};
    use jiff::Timestamp;

    fn judge(criteria: Criteria) -> Judge {
        let product = |id: &str, name: &str, family: &str| Product {
            id: id.into(),
            name: name.into(),
            family: family.into(),
        };
        let known = [product("w11", "Windows 11", "Windows"), product("o", "Office 16", "Office")];
        Judge::new(Arc::new(criteria), known.iter())
    }

    #[test]
    fn one_wanted_product_is_enough_and_families_count() {
        for wanted in ["w11", "Windows 11", "windows"] {
            let judge = judge(Criteria { products: [wanted.into()].into(), ..Criteria::default() });
            let fit = |products: &[&str]| judge.fit(Kind::Software, None, products.iter().copied());
            assert_eq!(fit(&["o", "w11"]), Fit::Inside, "{wanted}");
            assert_eq!(fit(&["o"]), Fit::Outside);
            assert_eq!(fit(&[]), Fit::Unclear);
        }
        let judge =
            judge(Criteria { products: ["debian-12".into()].into(), ..Criteria::default() });
        assert_eq!(judge.fit(Kind::Software, None, ["debian-12"]), Fit::Inside, "not said yet");
        assert_eq!(judge.fit(Kind::Detectoid, None, ["o"]), Fit::Inside);
    }

    #[test]
    fn classification_and_product_must_both_fit() {
        let judge = judge(Criteria {
            classifications: [Classification::Security].into(),
            products: ["Windows".into()].into(),
            ..Criteria::default()
        });
        let fit = |class, product| judge.fit(Kind::Software, class, product);
        assert_eq!(fit(Some(Classification::Security), Some("w11")), Fit::Inside);
        assert_eq!(fit(Some(Classification::Tool), Some("w11")), Fit::Outside);
        assert_eq!(fit(Some(Classification::Tool), None), Fit::Outside);
        assert_eq!(fit(None, Some("w11")), Fit::Unclear);
    }

    #[test]
    fn languages_that_are_not_wanted_go_and_one_text_stays() {
        let language = |tag: &str| tag.parse::<Language>().unwrap();
        let mut update = Update::new(UpdateId::named(&["x"]), "x", "X", Timestamp::UNIX_EPOCH);
        update.texts.insert(language("pt-br"), Text { title: "P".into(), ..Text::default() });
        let file = |tag: Option<&str>| File { language: tag.map(language), ..File::default() };
        update.items.push(Item {
            files: vec![file(None), file(Some("pt-br")), file(Some("de"))],
            ..Item::default()
        });
        let languages =
            |tag: &str| Criteria { languages: [language(tag)].into(), ..Criteria::default() };
        let mut trimmed = update.clone();
        judge(languages("pt")).trim(&mut trimmed);
        assert_eq!(trimmed.texts.keys().map(Language::as_str).collect::<Vec<_>>(), ["pt-br"]);
        assert_eq!(trimmed.files().count(), 2);
        let mut trimmed = update.clone();
        judge(languages("ja")).trim(&mut trimmed);
        assert_eq!(trimmed.texts.keys().map(Language::as_str).collect::<Vec<_>>(), ["en"]);
        assert_eq!(trimmed.files().count(), 1);
    }
}
