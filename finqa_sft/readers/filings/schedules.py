"""Page kinds about what falls due in coming years, and facts that stand on pages of any kind."""

from __future__ import annotations

from finqa_sft.readers.filings.schema import Kind, Row, around, drawn, total

_DUE = "due1 due2 due3 due4 due5 later"


def _due_rows(
    what: str, *, low: float, high: float, swing: float, decline: float
) -> tuple[Row, ...]:
    """A row for each of the next five years, each lower than the last, and one for thereafter."""
    years = []
    for number in range(1, 6):
        left = (1 - decline) ** number
        years.append(
            Row(
                f"due{number}",
                f"{{due{number}}}",
                drawn(low * left, high * left, swing=swing),
                phrase=f"{what} due in {{due{number}}}",
                plural=True,
                part_of="all",
                tier=0 if number < 4 else 1,
            )
        )
    later = Row("later", "Thereafter", drawn(low, 3 * high, swing=swing), plural=True,
                phrase=f"{what} due thereafter", part_of="all")  # fmt: skip
    return (*years, later)


DEBT = Kind(
    topics=frozenset({"due", "debt", "interest"}),
    headings=("Debt maturities", "Long-term debt", "Note on long-term debt"),
    intros=(
        "Scheduled maturities of long-term debt at the end of fiscal {year} are as follows{note}.",
        "The long-term debt of {company} falls due in the years shown below{note}.",
    ),
    columns=(
        ("Senior notes", "on the senior notes", 1.0),
        ("Term loans", "on the term loans", 0.7),
        ("Other borrowings", "on other borrowings", 0.3),
    ),
    sum_column=("Total debt", "on all debt"),
    rows=(
        *_due_rows("principal payments", low=0.006, high=0.03, swing=0.5, decline=0),
        Row("all", "Total maturities", total(_DUE), phrase="total principal payments", plural=True,
            sums=True),
        Row("discount", "Less unamortized discount", drawn(0.004, 0.012, of="all", sign=-1),
            contra=True, tier=2),
        Row("net", "Long-term debt, net of discount", total("all discount"),
            contra=True, sums=True, tier=2),
    ),
    facts=(
        Row("paid", "interest paid on debt", drawn(0.006, 0.014, swing=0.15),
            text="Interest paid on debt was {v0} in {y0}, {v1} in {y1} and {v2} in {y2}."),
        Row("rate", "the weighted average interest rate", around(2.4, 6.2, swing=0.1),
            unit="percent", stock=True,
            text="The weighted average interest rate on borrowings was {v0} at the end of {y0} and "
            "{v1} at the end of {y1}."),
        Row("repaid", "repayments of term loans", drawn(0.005, 0.02, swing=0.3), plural=True,
            text="Repayments of term loans were {v0} in {y0}, compared with {v1} in {y1}."),
    ),
)  # fmt: skip

LEASES = Kind(
    topics=frozenset({"due", "leases"}),
    headings=("Leases", "Lease obligations", "Note on leases"),
    intros=(
        "Future minimum payments under leases in effect at the end of fiscal {year} are shown "
        "below{note}.",
        "Maturities of the lease liabilities of {company} were as follows{note}.",
    ),
    first_year=2019,
    columns=(
        ("Operating leases", "under operating leases", 1.0),
        ("Finance leases", "under finance leases", 0.35),
    ),
    sum_column=("Total leases", "under all leases"),
    rows=(
        *_due_rows("payments", low=0.009, high=0.011, swing=0.1, decline=0.12),
        Row("all", "Total lease payments", total(_DUE), phrase="total payments", plural=True,
            sums=True),
        Row("imputed", "Less imputed interest", drawn(0.08, 0.16, of="all", sign=-1), contra=True,
            tier=1),
        Row("liability", "Present value of payments", total("all imputed"), sums=True, tier=1,
            phrase="the present value of payments"),
    ),
    facts=(
        Row("cost", "operating lease cost", drawn(0.006, 0.014),
            text="Operating lease cost was {v0} in {y0}, {v1} in {y1} and {v2} in {y2}."),
        Row("variable", "variable lease cost", drawn(0.002, 0.004, swing=0.2),
            text="Variable lease cost, which is not included in the table, was {v0} in {y0} and "
            "{v1} in {y1}."),
        Row("discount", "the weighted average discount rate", around(2.6, 5.8, swing=0.1),
            unit="percent", stock=True,
            text="The weighted average discount rate of operating leases was {v0} at the end of "
            "{y0}, compared with {v1} at the end of {y1}."),
    ),
)  # fmt: skip

OBLIGATIONS = Kind(
    topics=frozenset({"due", "debt", "leases"}),
    headings=("Contractual obligations", "Commitments", "Future cash requirements"),
    intros=(
        "The table summarizes our contractual obligations at the end of fiscal {year}{note}.",
        "Payments due under contractual obligations of {company} by period are as follows{note}.",
    ),
    columns=(
        ("Less than 1 year", "due in less than 1 year", 0.5),
        ("1 to 3 years", "due in 1 to 3 years", 1.0),
        ("4 to 5 years", "due in 4 to 5 years", 0.8),
        ("After 5 years", "due after 5 years", 0.7),
    ),
    sum_column=("Total", "over all periods"),
    all_columns=True,
    rows=(
        *(
            Row(key, label, drawn(low, high, swing=0.25), plural=True, part_of="all",
                tier=tier,
                phrase=phrase)
            for key, label, phrase, low, high, tier in (
                ("debt", "Long-term debt", "long-term debt payments", 0.03, 0.09, 0),
                ("interest", "Interest payments", "", 0.006, 0.02, 1),
                ("leases", "Operating leases", "operating lease payments", 0.005, 0.02, 0),
                ("purchases", "Purchase obligations", "", 0.01, 0.05, 0),
                ("pension", "Pension contributions", "", 0.003, 0.008, 2),
                ("other", "Other liabilities", "payments on other liabilities", 0.002, 0.006, 3),
            )
        ),
        Row("all", "Total obligations",
            total("debt interest leases purchases pension other"), plural=True, sums=True),
    ),
    facts=(
        Row("bought", "purchases under long-term supply contracts", drawn(0.01, 0.03, swing=0.2),
            plural=True,
            text="Purchases under long-term supply contracts were {v0} in {y0}, {v1} in {y1} and "
            "{v2} in {y2}."),
        Row("guarantees", "guarantees of obligations of third parties", drawn(0.005, 0.012),
            plural=True, stock=True,
            text="Guarantees of obligations of third parties, which are not included in the table, "
            "stood at {v0} at the end of {y0} and {v1} at the end of {y1}."),
        Row("rent", "rent expense", drawn(0.005, 0.015),
            text="Rent expense was {v0} in {y0}, compared with {v1} in {y1}."),
    ),
)  # fmt: skip

SCHEDULES = (DEBT, LEASES, OBLIGATIONS)

GENERAL_FACTS = (
    Row("employees", "the number of employees", drawn(0.7, 1.4), unit="people", stock=True,
        text="We had {v0} employees at the end of fiscal {y0}, compared with {v1} a year earlier."),
    Row("customer", "the share of net sales to the largest customer", around(10.5, 18, swing=0.1),
        unit="percent",
        text="Our largest customer accounted for {v0} of net sales in {y0} and {v1} in {y1}."),
    Row("backlog", "the order backlog", drawn(0.12, 0.4, swing=0.12), stock=True,
        text="The order backlog of {company} stood at {v0} at the end of {y0} and {v1} at the end "
        "of {y1}."),
    Row("doubtful", "the allowance for doubtful accounts", drawn(0.004, 0.009, swing=0.2),
        stock=True,
        text="The allowance for doubtful accounts was {v0} at the end of {y0} and {v1} at the end "
        "of {y1}."),
    Row("letters", "outstanding letters of credit", drawn(0.008, 0.02, swing=0.15), plural=True,
        stock=True,
        text="Outstanding letters of credit totaled {v0} at the end of {y0}, compared with {v1} at "
        "the end of {y1}."),
    Row("warranty", "the accrual for product warranties", drawn(0.005, 0.015, swing=0.15),
        stock=True,
        text="The accrual for product warranties was {v0} at the end of {y0}."),
    Row("retirement", "the cost of defined contribution plans", drawn(0.006, 0.012, swing=0.1),
        text="The cost of our defined contribution plans was {v0} in {y0}, {v1} in {y1} and {v2} "
        "in {y2}."),
    Row("environment", "environmental remediation costs", drawn(0.003, 0.008, swing=0.3),
        plural=True,
        text="Environmental remediation costs came to {v0} in {y0} and {v1} in {y1}."),
    Row("patents", "the number of patents held", drawn(0.08, 0.2, swing=0.05), unit="people",
        stock=True,
        text="At the end of fiscal {y0}, {company} held {v0} patents, after {v1} a year earlier."),
)  # fmt: skip
