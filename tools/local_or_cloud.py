#!/usr/bin/env python3
"""Local or cloud, for one site: a page of what was measured and of what is assumed.

    ward bench -m ./models -o json > r.json
    tools/local_or_cloud.py r.json --answers-a-day 40 --cloud-price 0.02 --upload-mbits 10 > our-site.md

Everything local comes from a result of `ward bench`; everything about a cloud and its prices is an assumption, an option, and
is printed as such: put in what your provider and your network give. Needs Python's standard library, no network.
"""

import argparse
import json
import sys

DAYS = 365
ASSUMPTIONS = [
    # option, default, unit, meaning
    ("answers-a-day", 40, "", "questions about an image"),
    ("image-mb", 5, "MB", "size of an image that would be sent"),
    ("upload-mbits", 10, "Mbit/s", "the site's upload"),
    ("round-trip-ms", 60, "ms", "to the provider and back"),
    ("cloud-answer-ms", 2500, "ms", "the provider's own time for an answer"),
    ("cloud-price", 0.02, "", "price of an answer at the provider"),
    ("machine-price", 1200, "", "of the machine that was measured; 0: it is there already"),
    ("machine-years", 4, "years", "that it serves"),
    ("watts", 65, "W", "that it takes while it answers, where the result has no energy"),
    ("kwh-price", 0.30, "", "price of a kilowatt-hour"),
    ("outage-hours", 20, "h", "a year without network"),
]


def pick(document, number):
    results = [r for r in document["results"] if r["latency_ms"] and r["test"]["image"]]
    if not results:
        sys.exit("local_or_cloud.py: the result holds no measured answer about an image")
    if not 1 <= number <= len(results):
        sys.exit(f"local_or_cloud.py: --result takes 1 to {len(results)}")
    return results[number - 1]


def seconds(ms):
    return f"{ms / 1000:.1f} s"


def page(document, r, a):
    local = r["latency_ms"]["mean"]
    upload = a.image_mb * 8 / a.upload_mbits * 1000
    cloud = upload + a.round_trip_ms + a.cloud_answer_ms
    answers = a.answers_a_day * DAYS
    joules = r["energy"]["joules_run"] if r["energy"] and r["energy"]["joules_run"] is not None else a.watts * local / 1000
    power = joules / 3.6e6 * a.kwh_price
    machine = a.machine_price / a.machine_years
    local_year, cloud_year = machine + power * answers, a.cloud_price * answers
    busy = local / 1000 * a.answers_a_day / 3600
    random = " (random weights: answers as long as the cap)" if r["model"]["random_weights"] else ""
    rows = [
        ("an answer", seconds(local), f"{seconds(cloud)}: {seconds(upload)} upload, {a.round_trip_ms:g} ms round trip, "
                                      f"{seconds(a.cloud_answer_ms)} at the provider"),
        ("with an upload ten times as fast", seconds(local), seconds(upload / 10 + a.round_trip_ms + a.cloud_answer_ms)),
        ("a day's answers", f"{busy:.1f} h of the machine" + (" (more than a day: not enough)" if busy > 24 else ""), "-"),
        ("data that leaves the site", "none", f"{a.image_mb * a.answers_a_day:g} MB a day, patients' images"),
        ("without network", "as always", f"nothing, {a.outage_hours:g} h a year: {a.outage_hours / 24 * a.answers_a_day:.0f} "
                                         "answers late or never"),
        ("cost of an answer", f"{local_year / answers:.4f}", f"{a.cloud_price:.4f}"),
        ("cost of a year", f"{local_year:.0f}: {machine:.0f} machine, {power * answers:.0f} power", f"{cloud_year:.0f}"),
    ]
    even = machine / ((a.cloud_price - power) * DAYS) if a.cloud_price > power else None
    rows.append(("local is cheaper from", "-" if even is None else f"{even:.0f} answers a day", "-"))
    out = [f"Measured: {r['model']['name']}, {r['model']['type']}{random}, on {document['environment']['cpu']} with "
           f"{r['threads']} threads, {document['started'][:10]}: {local:.0f} ms an answer, {r['tokens']['mean']:.0f} tokens, "
           f"{len(r['latency_ms']['runs'])} runs.", "", "| | local (measured) | cloud (assumed) |", "|--|--|--|"]
    out += [f"| {what} | {here} | {there} |" for what, here, there in rows]
    out += ["", "| assumed | | |", "|--|--:|--|"]
    for name, _, unit, meaning in ASSUMPTIONS:
        value = getattr(a, name.replace("-", "_"))
        out.append(f"| `--{name}` | {value:g}{' ' + unit if unit else ''} | {meaning} |")
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0], epilog="Prices are in any one currency.")
    parser.add_argument("result", help="what `ward bench -o json` wrote")
    parser.add_argument("--result", dest="number", type=int, default=1, metavar="N", help="which of its results (1)")
    for name, default, unit, meaning in ASSUMPTIONS:
        parser.add_argument(f"--{name}", type=float, default=default, metavar=unit or "N", help=f"{meaning} ({default})")
    a = parser.parse_args()
    for name in ("answers_a_day", "upload_mbits", "machine_years"):
        if not getattr(a, name) > 0:
            sys.exit(f"local_or_cloud.py: --{name.replace('_', '-')} takes a number above 0")
    try:
        with open(a.result, encoding="utf-8") as file:
            document = json.load(file)
        if document.get("format") != "ward-bench" or document.get("version") != 1:
            raise ValueError("no result of ward bench, version 1")
    except (OSError, ValueError, AttributeError) as error:
        sys.exit(f"local_or_cloud.py: {a.result}: {error}")
    print(page(document, pick(document, a.number), a))


if __name__ == "__main__":
    main()
