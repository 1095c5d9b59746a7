"""Write src/selfie_adapters/sources/twohop_facts.jsonl: real facts as two-hop questions.

Each question leads from a capital or a landmark over a country, which it does not name, to that
country's currency, language, continent or capital. Written for this project; facts as of 2025.
"""

from __future__ import annotations

import json
from pathlib import Path

OUT = Path(__file__).parent.parent / "src/selfie_adapters/sources/twohop_facts.jsonl"

# country (other names) | capital | landmark or river | currency | language | continent
COUNTRIES = """
France (French Republic) | Paris | the Eiffel Tower | euro | French | Europe
Germany (Federal Republic of Germany; Deutschland) | Berlin | the Brandenburg Gate | euro | German | Europe
Italy (Italian Republic; Italia) | Rome | the Colosseum | euro | Italian | Europe
Spain (Kingdom of Spain; España) | Madrid | the Sagrada Família | euro | Spanish | Europe
Portugal (Portuguese Republic) | Lisbon | the Belém Tower | euro | Portuguese | Europe
Greece (Hellenic Republic; Hellas) | Athens | the Parthenon | euro | Greek | Europe
Austria (Republic of Austria; Österreich) | Vienna | the Schönbrunn Palace | euro | German | Europe
Netherlands (The Netherlands; Holland) | Amsterdam | the Anne Frank House | euro | Dutch | Europe
Ireland (Republic of Ireland; Éire) | Dublin | the Blarney Stone | euro | English | Europe
Finland (Republic of Finland; Suomi) | Helsinki | the Suomenlinna fortress | euro | Finnish | Europe
Poland (Republic of Poland; Polska) | Warsaw | the Wawel Castle | złoty | Polish | Europe
Hungary (Magyarország) | Budapest | the Buda Castle | forint | Hungarian | Europe
Sweden (Kingdom of Sweden; Sverige) | Stockholm | the Vasa Museum | krona | Swedish | Europe
Norway (Kingdom of Norway; Norge) | Oslo | the Geirangerfjord | krone | Norwegian | Europe
Denmark (Kingdom of Denmark; Danmark) | Copenhagen | the Little Mermaid statue | krone | Danish | Europe
Russia (Russian Federation) | Moscow | the Kremlin | ruble | Russian | Europe
Ukraine | Kyiv | the Saint Sophia Cathedral of Kyiv | hryvnia | Ukrainian | Europe
Turkey (Türkiye; Republic of Turkey) | Ankara | the Hagia Sophia | lira | Turkish | Asia
Japan (Nippon; Nihon) | Tokyo | Mount Fuji | yen | Japanese | Asia
China (People's Republic of China; PRC) | Beijing | the Forbidden City | yuan | Chinese | Asia
India (Republic of India; Bharat) | New Delhi | the Taj Mahal | rupee | Hindi | Asia
South Korea (Republic of Korea; Korea) | Seoul | the Gyeongbokgung Palace | won | Korean | Asia
Thailand (Kingdom of Thailand; Siam) | Bangkok | the Wat Arun temple | baht | Thai | Asia
Vietnam (Viet Nam) | Hanoi | Ha Long Bay | dong | Vietnamese | Asia
Cambodia (Kingdom of Cambodia) | Phnom Penh | Angkor Wat | riel | Khmer | Asia
Israel (State of Israel) | Jerusalem | the Western Wall | shekel | Hebrew | Asia
Iran (Islamic Republic of Iran; Persia) | Tehran | Persepolis | rial | Persian | Asia
Saudi Arabia (Kingdom of Saudi Arabia; KSA) | Riyadh | the Great Mosque of Mecca | riyal | Arabic | Asia
Egypt (Arab Republic of Egypt) | Cairo | the Great Sphinx | pound | Arabic | Africa
Morocco (Kingdom of Morocco) | Rabat | the Hassan II Mosque | dirham | Arabic | Africa
Kenya (Republic of Kenya) | Nairobi | the Maasai Mara | shilling | Swahili | Africa
Ethiopia (Abyssinia) | Addis Ababa | the rock churches of Lalibela | birr | Amharic | Africa
Brazil (Federative Republic of Brazil; Brasil) | Brasília | the Christ the Redeemer statue | real | Portuguese | South America
Peru (Republic of Peru; Perú) | Lima | Machu Picchu | sol | Spanish | South America
Argentina (Argentine Republic) | Buenos Aires | the Perito Moreno Glacier | peso | Spanish | South America
Chile (Republic of Chile) | Santiago | the Easter Island statues | peso | Spanish | South America
Mexico (México; United Mexican States) | Mexico City | Chichen Itza | peso | Spanish | North America
Cuba (Republic of Cuba) | Havana | the Malecón | peso | Spanish | North America
Canada | Ottawa | the CN Tower | dollar | English | North America
Australia (Commonwealth of Australia) | Canberra | the Sydney Opera House | dollar | English | Oceania
""".strip()

OTHER_NAMES = {
    "złoty": ["zloty", "Polish złoty", "Polish zloty", "PLN"],
    "krona": ["kronor", "Swedish krona", "SEK"],
    "ruble": ["rouble", "rubles", "Russian ruble", "RUB"],
    "yuan": ["renminbi", "RMB", "CNY", "Chinese yuan"],
    "rupee": ["rupees", "Indian rupee", "INR"],
    "euro": ["euros", "EUR", "€"],
    "yen": ["Japanese yen", "JPY", "¥"],
    "real": ["reais", "Brazilian real", "BRL"],
    "dong": ["đồng", "Vietnamese dong", "VND"],
    "sol": ["soles", "nuevo sol", "PEN"],
    "Chinese": ["Mandarin", "Mandarin Chinese", "Standard Chinese"],
    "Persian": ["Farsi"],
    "Portuguese": ["Brazilian Portuguese"],
    "Spanish": ["Castilian"],
    "Swahili": ["Kiswahili"],
    "Brasília": ["Brasilia"],
    "Kyiv": ["Kiev"],
    "Oceania": ["Australia"],
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
    "continent": ("The continent of", ("capital", "landmark")),
    "capital": ("The capital of", ("landmark",)),
}


def rows() -> list[dict[str, str]]:
    """One row a question, columns as in TwoHopFact."""
    made: list[dict[str, str]] = []
    for line in COUNTRIES.splitlines():
        name, capital, landmark, currency, language, continent = map(str.strip, line.split("|"))
        country, _, others = name.rstrip(")").partition(" (")
        facts = dict(currency=currency, language=language, continent=continent, capital=capital)
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
