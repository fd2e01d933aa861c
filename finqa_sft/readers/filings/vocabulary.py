"""Made-up companies, their lines of business, and the sentences that fill a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finqa_sft.readers.filings.draws import Draws

YEARS = range(2005, 2024)
"""Fiscal years that companies report on."""

HEADS = (
    "Alvermoor", "Brackwen", "Caldrith", "Dunmarrow", "Elvanor", "Fenwrick", "Garrowby",
    "Halvestone", "Ironmere", "Jarrelton", "Kestrin", "Lorwick", "Marlhaven", "Northrell",
    "Ondrale", "Pellingford", "Quenlow", "Rosthwick", "Silvercombe", "Tarnholt", "Umberlyn",
    "Vantrell", "Wexmoor", "Yarrowfell", "Zephrane", "Ashvarrow", "Birchmantle", "Corrindale",
    "Drummerly", "Eastmarrow", "Farrowdene", "Gristholm", "Hexcombe", "Ivorlund", "Kelderan",
    "Lathmoor", "Mostyngate", "Netherwyn", "Oakhelm", "Pryordale",
)  # fmt: skip
"""First words of company names; no two share their first four letters."""


@dataclass(frozen=True, slots=True)
class Sector:
    """A line of business.

    Attributes:
        code: Last letter of the ticker; no two sectors share it.
        name: Its name in running text.
        tails: Second words of company names.
        segments: Names of operating segments.
    """

    code: str
    name: str
    tails: tuple[str, str, str]
    segments: tuple[str, str, str, str, str]


SECTORS = (
    Sector("C", "specialty chemicals", ("Chemical", "Materials", "Coatings"),
           ("Industrial Coatings", "Additives", "Water Solutions", "Adhesives", "Crop Inputs")),
    Sector("T", "electronic instruments", ("Instruments", "Electronics", "Sensors"),
           ("Test Equipment", "Process Control", "Imaging", "Power Devices", "Laboratory")),
    Sector("F", "packaged food", ("Foods", "Provisions", "Kitchens"),
           ("Snacks", "Frozen Meals", "Beverages", "Pet Nutrition", "Foodservice")),
    Sector("K", "industrial machinery", ("Machinery", "Industries", "Hydraulics"),
           ("Pumps and Valves", "Material Handling", "Compressors", "Motion Control", "Tooling")),
    Sector("M", "medical devices", ("Medical", "Surgical", "Diagnostics"),
           ("Orthopedics", "Cardiac Care", "Wound Care", "Diagnostics", "Dental")),
    Sector("S", "semiconductors", ("Semiconductor", "Microsystems", "Circuits"),
           ("Analog", "Power Management", "Wireless", "Memory", "Automotive Chips")),
    Sector("P", "packaging", ("Packaging", "Containers", "Paper"),
           ("Corrugated", "Flexible Films", "Closures", "Specialty Paper", "Labels")),
    Sector("R", "apparel and footwear", ("Apparel", "Outfitters", "Footwear"),
           ("Outdoor", "Workwear", "Athletic", "Denim", "Accessories")),
    Sector("A", "aerospace components", ("Aerospace", "Aerostructures", "Propulsion"),
           ("Airframe", "Engine Parts", "Avionics", "Aftermarket", "Space Systems")),
    Sector("B", "building products", ("Building Products", "Home Products", "Stoneworks"),
           ("Roofing", "Windows and Doors", "Insulation", "Flooring", "Plumbing")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Company:
    """An invented company.

    Attributes:
        ticker: Five letters, its own.
        name: Its name in running text.
        sector: What it does.
        sales: Sales of each fiscal year in millions of dollars.
        year_end: Last day of its fiscal year.
    """

    ticker: str
    name: str
    sector: Sector
    sales: Mapping[int, float]
    year_end: str


def company(number: int, *, seed: int) -> Company:
    """The company with this number: all of the first 400 differ."""
    draws = Draws(seed, "company", number)
    heads = Draws(seed, "heads").shuffled(HEADS)
    lap, place = divmod(number, len(HEADS))
    head = heads[place]
    sector = SECTORS[(place + lap) % len(SECTORS)]
    sales = [draws.pick((100, 1_000, 3_000)) * draws.between(4, 9.5)]
    for _ in YEARS[1:]:
        sales.append(sales[-1] * (1 + draws.between(-0.07, 0.13)))
    return Company(
        ticker=head[:4].upper() + sector.code,
        name=f"{head} {draws.pick(sector.tails)}",
        sector=sector,
        sales=dict(zip(YEARS, sales, strict=True)),
        year_end=draws.pick(("December 31", "December 31", "June 30", "September 30")),
    )


FILLER = (
    "{company} competes on price, product quality, delivery and service, and no single competitor "
    "is active in all of its markets.",
    "Our results in any period depend on demand in the markets we serve, which has been cyclical "
    "and may be so again.",
    "We believe that our sources of liquidity are sufficient to meet our needs for the foreseeable "
    "future, although no assurance can be given that market conditions will not change.",
    "Management reviews its accounting estimates each quarter and adjusts them when new "
    "information becomes available.",
    "Actual results could differ from our estimates, and the differences could be material.",
    "Certain amounts of prior years have been reclassified to conform to the current presentation, "
    "with no effect on net income or equity.",
    "The following discussion should be read together with the consolidated financial statements "
    "and the notes that accompany them.",
    "Costs of raw materials rose in the second half of the year, and we were able to pass on only "
    "a part of the increase to customers.",
    "Lead times in {sector} are long, and customers tend to stay with suppliers that they have "
    "qualified.",
    "From time to time we are party to legal proceedings that arise in the ordinary course of "
    "business, none of which is expected to have a material effect on our financial position.",
    "A deterioration of credit markets could make it harder or more costly to refinance "
    "obligations as they fall due.",
    "The board of directors reviews the capital structure of {company} at least once a year.",
    "We seek to limit our exposure to currencies by matching costs and revenues where that is "
    "practical, and by entering into forward contracts where it is not.",
    "None of our derivative instruments is held for trading.",
    "Our facilities are well maintained and, in the opinion of management, adequate for the level "
    "of business that we expect.",
    "Investments in automation continued during the year, mainly at our larger plants and "
    "distribution sites.",
    "We are subject to environmental laws in every country in which we operate, and we accrue for "
    "remediation when a loss is probable and can be estimated.",
    "Seasonal patterns affect working capital, which tends to peak in the middle of the calendar "
    "year.",
    "We protect our technology through a combination of patents, trade secrets and agreements with "
    "employees and partners.",
    "New accounting guidance that became effective during the year did not have a material effect "
    "on our consolidated financial statements.",
    "Approximately one third of our hourly workforce is covered by collective agreements, and we "
    "consider our relations with employees to be good.",
    "The integration of recently acquired operations is proceeding as planned.",
    "Restructuring actions begun in earlier years were largely completed, and we do not expect "
    "significant further charges from them.",
    "Forward-looking statements in this report speak only as of the date on which they are made.",
    "We monitor the financial condition of our principal suppliers and keep second sources for "
    "critical components.",
    "Interest rates on our floating rate obligations reset periodically, so that their carrying "
    "amounts approximate fair value.",
    "Management looks at cash flow as well as profit to assess operating performance and to set "
    "the targets of incentive plans.",
    "The audit committee discussed the selection of critical accounting policies with our "
    "independent auditors.",
    "Changes in tax law in any of the jurisdictions where {company} does business could affect "
    "future results.",
    "Because many of our costs are fixed in the short run, modest changes in volume can have a "
    "larger effect on profit.",
    "We maintain insurance against property damage, product liability and business interruption, "
    "subject to deductibles that we consider customary.",
    "Inflation has not had a significant effect on our operations in the periods presented.",
    "Management does not regard the pattern of a single quarter as indicative of a full year.",
    "Our internal audit department tests the controls over financial reporting throughout the "
    "year.",
    "Demand from customers in the public sector depends on budgets that are set annually and may "
    "be reduced at short notice.",
    "We expect to continue to invest in people, plants and systems that support long-term growth.",
    "Transactions between subsidiaries are eliminated in consolidation.",
    "{company} files its annual and quarterly reports with the Securities and Exchange "
    "Commission, and makes them available free of charge.",
    "Information technology is essential to our operations, and a prolonged failure of key "
    "systems could disrupt them.",
    "Our credit agreement contains customary covenants, and we were in compliance with all of "
    "them at the end of fiscal {year}.",
    "We evaluate possible acquisitions on an ongoing basis and may finance them with cash, debt "
    "or shares.",
    "Competition for skilled staff increased in several of our locations, which raised hiring and "
    "training costs.",
)
"""Sentences that say nothing that is asked about."""
