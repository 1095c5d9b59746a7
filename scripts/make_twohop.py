"""Write src/selfie_adapters/sources/twohop_facts.jsonl: real facts as two-hop questions.

Each question leads from a capital or a landmark over a country, which it does not name, to that
country's currency, language or capital. Written for this project; facts as of 2025. The countries
are mostly those that the demo model finds by their landmark or capital when it is asked.
"""

from __future__ import annotations

import json
from pathlib import Path

OUT = Path(__file__).parent.parent / "src/selfie_adapters/sources/twohop_facts.jsonl"

# country (other names) | capital | landmark | currency | official language
COUNTRIES = """
France (French Republic) | Paris | the Eiffel Tower | euro | French
Germany (Federal Republic of Germany; Deutschland) | Berlin | the Brandenburg Gate | euro | German
Italy (Italian Republic; Italia) | Rome | the Colosseum | euro | Italian
Spain (Kingdom of Spain; España) | Madrid | the Sagrada Família | euro | Spanish
Portugal (Portuguese Republic) | Lisbon | the Belém Tower | euro | Portuguese
Greece (Hellenic Republic; Hellas) | Athens | the Parthenon | euro | Greek
Hungary (Magyarország) | Budapest | the Buda Castle | forint | Hungarian
Russia (Russian Federation) | Moscow | the Kremlin | ruble | Russian
Turkey (Türkiye; Republic of Turkey) | Ankara | the Hagia Sophia | lira | Turkish
Japan (Nippon; Nihon) | Tokyo | Mount Fuji | yen | Japanese
China (People's Republic of China; PRC) | Beijing | the Forbidden City | yuan | Chinese
India (Republic of India; Bharat) | New Delhi | the Taj Mahal | rupee | Hindi
Iran (Islamic Republic of Iran; Persia) | Tehran | Persepolis | rial | Persian
Saudi Arabia (Kingdom of Saudi Arabia; KSA) | Riyadh | the Great Mosque of Mecca | riyal | Arabic
Egypt (Arab Republic of Egypt) | Cairo | the Great Sphinx | pound | Arabic
Peru (Republic of Peru; Perú) | Lima | Machu Picchu | sol | Spanish
Chile (Republic of Chile) | Santiago | the Easter Island statues | peso | Spanish
Mexico (México; United Mexican States) | Mexico City | Chichen Itza | peso | Spanish
Canada | Ottawa | the CN Tower | dollar | English
Australia (Commonwealth of Australia) | Canberra | the Sydney Opera House | dollar | English
""".strip()

OTHER_NAMES = {
    "ruble": ["rouble", "rubles", "Russian ruble", "RUB"],
    "yuan": ["renminbi", "RMB", "CNY", "Chinese yuan"],
    "rupee": ["rupees", "Indian rupee", "INR"],
    "euro": ["euros", "EUR", "€"],
    "yen": ["Japanese yen", "JPY", "¥"],
    "sol": ["soles", "nuevo sol", "PEN"],
    "Chinese": ["Mandarin", "Mandarin Chinese", "Standard Chinese"],
    "Persian": ["Farsi"],
    "Spanish": ["Castilian"],
}

# first hop, by what e1 is: the phrase for the country
FIRST = {
    "capital": "the country whose capital is {}",
    "landmark": "the country that is home to {}",
}
# second hop: phrase before the country's, and which e1 it can be asked from
SECOND = {
    "currency": ("The currency of", ("capital", "landmark")),
    "language": ("The official language of", ("capital", "landmark")),
    "capital": ("The capital of", ("landmark",)),
}


def rows() -> list[dict[str, str]]:
    """One row per question, columns as in TwoHopFact."""
    made: list[dict[str, str]] = []
    for line in COUNTRIES.splitlines():
        name, capital, landmark, currency, language = map(str.strip, line.split("|"))
        country, _, others = name.rstrip(")").partition(" (")
        facts = {"currency": currency, "language": language, "capital": capital}
        for first, e1 in (("capital", capital), ("landmark", landmark)):
            phrase = FIRST[first].format(e1)
            for second, (words, askable) in SECOND.items():
                if first not in askable or (first == "capital" and country in capital):
                    continue
                e3 = facts[second]
                made.append(
                    {
                        "uid": f"{first}-{second}-{country.lower().replace(' ', '-')}",
                        "category": f"{first}-country-{second}",
                        "fact_comp_type": f"country-{first}-{second}",
                        "e1.value": e1.removeprefix("the "),
                        "e2.value": country,
                        "e3.value": e3,
                        "e1.aliases": aliases(e1.removeprefix("the ")),
                        "e2.aliases": aliases(country, *filter(None, others.split("; "))),
                        "e3.aliases": aliases(e3, *OTHER_NAMES.get(e3, [])),
                        "r1(e1).prompt": f"{phrase[0].upper()}{phrase[1:]} is",
                        "r2(r1(e1)).prompt": f"{words} {phrase} is",
                    }
                )
    return made


def aliases(*names: str) -> str:
    """Names in the form TwoHopFact has them: a tuple of tuples, written out."""
    return repr((names,))


if __name__ == "__main__":
    made = rows()
    OUT.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), "utf-8")
    print(f"{len(made)} questions: {OUT.name}")
