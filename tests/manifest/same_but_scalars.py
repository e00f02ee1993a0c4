"""Lists the scalars that differ between two YAML texts, according to PyYAML.

Input: a JSON list of [before, after]. Output: a JSON list with an entry per pair: the differing scalars as
[line, before, after], or an error text (a text cannot be parsed, or not only scalars differ).
"""

import json
import sys

import yaml

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
STRING = "tag:yaml.org,2002:str"


class Different(Exception):
    pass


def compare(before, after, seen, differences):
    if (id(before), id(after)) in seen:
        return
    seen.add((id(before), id(after)))
    line = before.start_mark.line + 1
    if type(before) is not type(after):
        raise Different(f"line {line}: another kind of node")
    if isinstance(before, yaml.ScalarNode):
        if before.value != after.value:
            if after.tag != STRING:
                raise Different(f"line {line}: {after.value!r} is {after.tag}")
            differences.append([line, before.value, after.value])
        elif before.tag != after.tag:
            raise Different(f"line {line}: {before.tag} became {after.tag}")
        return
    if before.tag != after.tag or len(before.value) != len(after.value):
        raise Different(f"line {line}: another collection")
    for one, other in zip(before.value, after.value):
        pairs = zip(one, other) if isinstance(before, yaml.MappingNode) else [(one, other)]
        for one_node, other_node in pairs:
            compare(one_node, other_node, seen, differences)


def tell(before, after):
    try:
        before, after = (list(yaml.compose_all(text, Loader)) for text in (before, after))
    except yaml.YAMLError as error:
        return f"cannot be read: {' '.join(str(error).split())}"
    differences = []
    try:
        if len(before) != len(after):
            raise Different("another number of documents")
        for one, other in zip(before, after):
            if one is not None or other is not None:
                compare(one, other, set(), differences)
    except Different as error:
        return f"differs: {error}"
    return differences


json.dump([tell(*pair) for pair in json.load(sys.stdin)], sys.stdout)
