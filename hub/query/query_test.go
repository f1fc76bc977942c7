package query_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/query"
)

func TestCanonicalForm(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"keywords, names and collection":       {"select DEVICEID as Id from Devices where STATUS<>'x'", "SELECT deviceId AS Id FROM devices WHERE status != 'x'"},
		"other names of fields":                {"SELECT id, statusUpdatedTime FROM devices", "SELECT deviceId, statusUpdateTime FROM devices"},
		"another name of a job's field":        {"SELECT * FROM devices.jobs WHERE devices.jobs.createdTimeUtc > '2016'", "SELECT * FROM devices.jobs WHERE createdDateTimeUtc > '2016'"},
		"the collection before a name":         {"SELECT devices.modules.deviceId, devices.moduleId FROM devices.modules", "SELECT deviceId, moduleId FROM devices.modules"},
		"a tag with the name of a collection":  {"SELECT tags.[[devices]], [[devices]].x FROM devices", "SELECT tags.[[devices]], [[devices]].x FROM devices"},
		"no parentheses but what is needed":    {"SELECT * FROM devices WHERE ((tags.a=1 OR (tags.b=2 AND (NOT (tags.c)))) AND (1+(2*3)=7))", "SELECT * FROM devices WHERE (tags.a = 1 OR tags.b = 2 AND NOT tags.c) AND 1 + 2 * 3 = 7"},
		"what associates to the right":         {"SELECT * FROM devices WHERE 1-(2-3)=-(-tags.a) AND (tags.b AND tags.c)", "SELECT * FROM devices WHERE 1 - (2 - 3) = -(-tags.a) AND (tags.b AND tags.c)"},
		"a comparison of comparisons":          {"SELECT * FROM devices WHERE (tags.a=1)=(tags.b IN [1])", "SELECT * FROM devices WHERE (tags.a = 1) = (tags.b IN [1])"},
		"numbers":                              {"SELECT * FROM devices WHERE 0x2A = 4.20e1 OR 1e300 = 0.000", "SELECT * FROM devices WHERE 42 = 42 OR 1e+300 = 0"},
		"string escapes":                       {`SELECT * FROM devices WHERE tags.a IN ["it's", "\"\\", '\u00eb\uD83D\uDE00\ud800', '` + "\n" + `']`, `SELECT * FROM devices WHERE tags.a IN ['it\'s', '"\\', 'ë😀` + "\uFFFD" + `', '\u000a']`},
		"a list in a list":                     {"SELECT * FROM devices WHERE tags.a NIN [ [1], [ ], [[b]] ]", "SELECT * FROM devices WHERE tags.a NIN [ [1], [], b]"},
		"a name that needs brackets in a list": {"SELECT * FROM devices WHERE tags.a IN [ [[b c]] ]", "SELECT * FROM devices WHERE tags.a IN [ [[b c]]]"},
		"comments":                             {"/* all */ SELECT/**/*FROM/* ** */devices/**/", "SELECT * FROM devices"},
		"indexes":                              {"SELECT tags.a [ 0 ] [1].b, parentScopes[0] FROM devices", "SELECT tags.a[0][1].b, parentScopes[0] FROM devices"},
		"aggregates":                           {"select top 3 tags.a, count( ), max(tags.b) as m from devices where is_defined( tags.a ) group by tags.a", "SELECT TOP 3 tags.a, COUNT(), MAX(tags.b) AS m FROM devices WHERE IS_DEFINED(tags.a) GROUP BY tags.a"},
		"aliases":                              {"SELECT tags.a AS [[the a]], tags.b as b2, tags.c as [[count]] FROM devices", "SELECT tags.a AS [[the a]], tags.b AS b2, tags.c AS [[count]] FROM devices"},
		"the list of Azure IoT Explorer": {"\n    SELECT deviceId as DeviceId,\n    status as Status,\n    statusUpdatedTime as StatusUpdatedTime,\n    " +
			"capabilities.iotEdge as IotEdge FROM devices WHERE (capabilities.iotEdge = true AND STARTSWITH(devices.deviceId, 'x'))",
			"SELECT deviceId AS DeviceId, status AS Status, statusUpdateTime AS StatusUpdatedTime, capabilities.iotEdge AS IotEdge " +
				"FROM devices WHERE capabilities.iotEdge = true AND STARTSWITH(deviceId, 'x')"},
		"names with hyphens": {"SELECT tags.my-tag, tags.a-1--b AS a-b FROM devices WHERE properties.desired.KeyQuery0a1b2c3d-4e5f-6a7b-8c9d-0e1f2a3b4c5d = tags.not-in",
			"SELECT tags.[[my-tag]], tags.[[a-1--b]] AS [[a-b]] FROM devices WHERE properties.desired.[[KeyQuery0a1b2c3d-4e5f-6a7b-8c9d-0e1f2a3b4c5d]] = tags.[[not-in]]"},
		"a minus with blanks":            {"SELECT * FROM devices WHERE tags.a - tags.b = tags.a -1 AND tags.a\n-\n1 = version -tags.b", "SELECT * FROM devices WHERE tags.a - tags.b = tags.a - 1 AND tags.a - 1 = version - tags.b"},
		"a minus without a name before":  {"SELECT * FROM devices WHERE 10-version=tags.a[0]-1 AND (tags.a)-1=[[tags]].[[a]]-1 AND -version<0x10-1e-1", "SELECT * FROM devices WHERE 10 - version = tags.a[0] - 1 AND tags.a - 1 = tags.a - 1 AND -version < 16 - 0.1"},
		"minus of minus":                 {"SELECT * FROM devices WHERE tags.a - -1 = - 1", "SELECT * FROM devices WHERE tags.a - -1 = -1"},
		"a group by a name with hyphens": {"select tags.my-tag as my-tag, count() from devices group by tags.my-tag", "SELECT tags.[[my-tag]] AS [[my-tag]], COUNT() FROM devices GROUP BY tags.[[my-tag]]"},
		"the word undefined":             {"SELECT tags.undefined FROM devices WHERE undefined = null OR [[undefined]] = TRUE", "SELECT tags.[[undefined]] FROM devices WHERE undefined = null OR [[undefined]] = true"},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := query.Parse(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, q.String()); diff != "" {
				t.Errorf("Parse(%s) (-want +got):\n%s", tt.text, diff)
			}
		})
	}
}

func TestMistakesAreReportedInOneClearLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                                                           "ArgumentNull: the query is empty",
		" \n\t":                                                      "ArgumentNull: the query is empty",
		"SELECT 'x\xff'":                                             "ParseError: the query is not UTF-8",
		"DELETE FROM devices":                                        "ParseError: 1:0 unexpected 'DELETE', expected 'SELECT'",
		"SELECT *":                                                   "ParseError: 1:8 unexpected end of query, expected ',' or 'FROM'",
		"SELECT FROM devices":                                        "ParseError: 1:7 unexpected 'FROM', expected a property (a reserved word is a name only in [[ ]])",
		"SELECT a b FROM devices":                                    "ParseError: 1:9 unexpected 'b', expected ',' or 'FROM'",
		"SELECT a,* FROM devices":                                    "UnsupportedClause: 1:9 '*' selects everything and goes with nothing else",
		"SELECT *,a FROM devices":                                    "UnsupportedClause: 1:8 '*' selects everything and goes with nothing else",
		"SELECT 'a' FROM devices":                                    "ParseError: 1:7 unexpected string, expected a property",
		"SELECT DISTINCT deviceId FROM devices":                      "ParseError: 1:16 unexpected 'deviceId', expected ',' or 'FROM'",
		"SELECT TOP 0 * FROM devices":                                "ParseError: 1:11 TOP must be followed by a positive integer",
		"SELECT TOP 2.5 * FROM devices":                              "ParseError: 1:11 TOP must be followed by a positive integer",
		"SELECT TOP * FROM devices":                                  "ParseError: 1:11 TOP must be followed by a positive integer",
		"SELECT COUNT(*) FROM devices":                               "ParseError: 1:13 COUNT takes nothing in its parentheses",
		"SELECT AVG() FROM devices":                                  "ParseError: 1:11 unexpected ')', expected a property",
		"SELECT UPPER(deviceId) FROM devices":                        "UnsupportedFunction: 1:7 there is no function 'UPPER'",
		"SELECT is_null(tags.a) FROM devices":                        "UnsupportedClause: 1:7 SELECT takes properties and aggregates, 'is_null' is neither",
		"SELECT deviceId AS from FROM devices":                       "UnknownCollection: 1:24 there is no collection 'FROM', expected devices, devices.modules or devices.jobs",
		"SELECT deviceId AS top FROM devices":                        "ParseError: 1:19 unexpected 'top', expected an alias (a reserved word is a name only in [[ ]])",
		"SELECT * FROM":                                              "ParseError: 1:13 unexpected end of query, expected a collection",
		"SELECT * FROM devices.things":                               "UnknownCollection: 1:14 there is no collection 'devices.things', expected devices, devices.modules or devices.jobs",
		"SELECT * FROM devices d":                                    "ParseError: 1:22 unexpected 'd', expected 'WHERE', 'GROUP BY' or the end of the query",
		"SELECT * FROM devices;":                                     "ParseError: 1:21 unexpected semicolon",
		"SELECT * FROM devices\n\tORDER BY x":                        "ParseError: 2:1 unexpected 'ORDER', the language has no ORDER",
		"SELECT * FROM devices LIMIT 3":                              "ParseError: 1:22 unexpected 'LIMIT', the language has no LIMIT",
		"SELECT devices FROM devices":                                "ParseError: 1:7 a collection is not a property",
		"SELECT devices.modules FROM devices.modules":                "ParseError: 1:7 a collection is not a property",
		"SELECT tags.a FROM devices GROUP BY tags.a, tags.b":         "UnsupportedClause: 1:42 GROUP BY takes one property",
		"SELECT tags.b FROM devices GROUP BY tags.a":                 "UnsupportedClause: 1:7 this property must be aggregated, or be what GROUP BY names",
		"SELECT COUNT(), [[a;\n]] FROM devices":                      "UnsupportedClause: 1:16 this property must be aggregated, or be what GROUP BY names",
		"SELECT * FROM devices GROUP BY tags.a":                      "UnsupportedClause: 1:22 GROUP BY does not go with 'SELECT *'",
		"SELECT * FROM devices.jobs GROUP BY jobId":                  "UnsupportedClause: 1:27 devices.jobs has no GROUP BY",
		"SELECT jobId FROM devices.jobs":                             "UnsupportedClause: 1:7 devices.jobs is selected from with '*' only",
		"SELECT * FROM devices WHERE tags.größe = 1":                 "ParseError: 1:35 unexpected character U+00F6, names with other characters than letters, digits, _, $ and - are written in [[ ]]",
		"SELECT * FROM devices\nWHERE 'ë' AND tags.ü":                "ParseError: 2:19 unexpected character U+00FC, names with other characters than letters, digits, _, $ and - are written in [[ ]]",
		"SELECT * FROM devices WHERE tags.a LIKE 'x'":                "ParseError: 1:35 unexpected 'LIKE', the language has no LIKE",
		"SELECT * FROM devices WHERE tags.a = ":                      "ParseError: 1:37 unexpected end of query, expected a value",
		"SELECT * FROM devices WHERE tags.a = 1 tags.b = 2":          "ParseError: 1:39 unexpected 'tags', expected an operator, 'GROUP BY' or the end of the query",
		"SELECT * FROM devices WHERE (tags.a = 1":                    "ParseError: 1:39 unexpected end of query, expected an operator or ')'",
		"SELECT * FROM devices WHERE tags.a IN (1, 2)":               "ParseError: 1:38 unexpected '(', expected '[' and the values",
		"SELECT * FROM devices WHERE tags.a IN [[1]]":                "ParseError: 1:38 unexpected name in [[ ]], expected '[' and the values",
		"SELECT * FROM devices WHERE tags.a IN [1":                   "ParseError: 1:40 unexpected end of query, expected ',' or ']'",
		"SELECT * FROM devices WHERE tags.a[x] = 1":                  "ParseError: 1:35 unexpected 'x', expected the index of an element",
		"SELECT * FROM devices WHERE tags. = 1":                      "ParseError: 1:34 unexpected '=', expected a value",
		"SELECT * FROM devices WHERE tags.[[a = 1":                   "ParseError: 1:33 the name in [[ has no ]]",
		"SELECT * FROM devices WHERE tags.[[]] = 1":                  "ParseError: 1:33 a name in [[ ]] must not be empty",
		"SELECT * FROM devices WHERE IS_NULL(a, b)":                  "ParseError: 1:28 the number of arguments of IS_NULL is 1, not 2",
		"SELECT * FROM devices WHERE STARTS_WITH(deviceId, 'x')":     "UnsupportedFunction: 1:28 STARTS_WITH is a function of message routes, here it is STARTSWITH",
		"SELECT * FROM devices WHERE COUNT() > 1":                    "UnsupportedClause: 1:28 COUNT belongs behind SELECT",
		"SELECT * FROM devices WHERE AND(tags.a)":                    "ParseError: 1:28 unexpected 'AND', expected a value",
		"SELECT * FROM devices WHERE tags.a = 12ab":                  "ParseError: 1:37 a number must be decimal, or hexadecimal after 0x",
		"SELECT * FROM devices WHERE tags.a = 0x":                    "ParseError: 1:37 a number must be decimal, or hexadecimal after 0x",
		"SELECT * FROM devices WHERE tags.a = 1e999":                 "ParseError: 1:37 the number is too large",
		"SELECT * FROM devices WHERE tags.a = 'x\\n'":                "ParseError: 1:39 a backslash in a string must be followed by a quote, a backslash or u",
		"SELECT * FROM devices WHERE tags.a = '\\u12'":               "ParseError: 1:38 '\\u' must be followed by four hexadecimal digits",
		"SELECT * FROM devices WHERE tags.a = 'it''s'":               "ParseError: 1:41 unexpected string, expected an operator, 'GROUP BY' or the end of the query",
		"SELECT * FROM devices WHERE tags.a = 1 -- the first":        "ParseError: 1:39 unexpected '--', a comment is written /* */, and between two minus signs is a blank",
		"SELECT * FROM devices -- all":                               "ParseError: 1:22 unexpected '--', a comment is written /* */, and between two minus signs is a blank",
		"SELECT * FROM devices WHERE tags.a = 5--1":                  "ParseError: 1:38 unexpected '--', a comment is written /* */, and between two minus signs is a blank",
		"SELECT * FROM devices WHERE tags.a- 1 = 2":                  "ParseError: 1:34 unexpected '-' at the end of a name, which is written in [[ ]] if the hyphen is part of it, and minus with blanks around it",
		"SELECT * FROM devices WHERE tags.-a = 2":                    "ParseError: 1:33 unexpected '-', expected a value",
		"SELECT * FROM devices WHERE tags.a = 1 AND-1 = 2":           "ParseError: 1:39 unexpected 'AND-1', expected an operator, 'GROUP BY' or the end of the query",
		"SELECT * FROM devices-x":                                    "UnknownCollection: 1:14 there is no collection 'devices-x', expected devices, devices.modules or devices.jobs",
		"SELECT * FROM devices WHERE STARTS-WITH(tags.a, 'x')":       "UnsupportedFunction: 1:28 there is no function 'STARTS-WITH'",
		"SELECT * FROM devices /* WHERE":                             "ParseError: 1:22 the comment has no end",
		"SELECT * FROM devices GROUP tags.a":                         "ParseError: 1:28 unexpected 'tags', expected 'BY'",
		"SELECT * FROM devices WHERE " + strings.Repeat("(", 300):    "ParseError: 1:278 the query is nested too deeply",
		"SELECT * FROM devices WHERE " + strings.Repeat("NOT ", 300): "ParseError: 1:1032 the query is nested too deeply",
		"SELECT * FROM " + strings.Repeat("ë", 8192):                 "QueryTooLong: the query has 8206 characters, the most are 8192",
	} {
		_, err := query.Parse(text)
		checkMistake(t, text, err, want)
	}
}

func checkMistake(t *testing.T, text string, err error, want string) {
	t.Helper()
	var e *query.Error
	if !errors.As(err, &e) {
		t.Errorf("Parse(%s) = %v, want %s", text, err, want)
		return
	}
	got := fmt.Sprintf("%v: %s", e.Class, e.Message)
	prefix := ""
	if e.Line > 0 {
		place := fmt.Sprintf("%d:%d ", e.Line, e.Column)
		got = fmt.Sprintf("%v: %s%s", e.Class, place, e.Message)
		prefix = "SQL query parse failed due to following errors: Line " + place
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parse(%s) (-want +got):\n%s", text, diff)
	}
	if e.Error() != prefix+e.Message {
		t.Errorf("Parse(%s): Error() = %s", text, e.Error())
	}
}

func TestConditions(t *testing.T) {
	for text, want := range map[string]string{
		"*":                          "SELECT * FROM devices",
		" * ":                        "SELECT * FROM devices",
		"deviceId IN ['a','b']":      "SELECT * FROM devices WHERE deviceId IN ['a', 'b']",
		"IS_DEFINED(DeviceId)":       "SELECT * FROM devices WHERE IS_DEFINED(deviceId)",
		"tags.environment='test'":    "SELECT * FROM devices WHERE tags.environment = 'test'",
		"devices.status = 'enabled'": "SELECT * FROM devices WHERE status = 'enabled'",
		"tags.my-tag = 1":            "SELECT * FROM devices WHERE tags.[[my-tag]] = 1",
	} {
		q, err := query.ParseCondition(text)
		if err != nil || q.String() != want {
			t.Errorf("ParseCondition(%s) = %v, %v, want %s", text, q, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                                  "ArgumentNull: the condition is empty",
		"SELECT * FROM devices":             "ParseError: 1:0 unexpected 'SELECT', expected a value (a reserved word is a name only in [[ ]])",
		"tags.a = 1 GROUP BY tags.a":        "ParseError: 1:11 unexpected 'GROUP', expected an operator or the end of the condition",
		"* AND tags.a":                      "ParseError: 1:0 unexpected '*', expected a value",
		"tags.a = 1 -- one":                 "ParseError: 1:11 unexpected '--', a comment is written /* */, and between two minus signs is a blank",
		"tags.a = 1;":                       "ParseError: 1:10 unexpected semicolon",
		"tags.a\n = " + "CONTAINS('a','b')": "UnsupportedFunction: 2:3 there is no function 'CONTAINS'",
	} {
		_, err := query.ParseCondition(text)
		checkMistake(t, text, err, want)
	}
}

func TestBounds(t *testing.T) {
	id := func(ids ...string) (list []query.Range) {
		for _, id := range ids {
			list = append(list, query.Range{From: id, To: id + "\x00"})
		}
		return list
	}
	all := []query.Range{{}}
	for condition, want := range map[string][]query.Range{
		"tags.a = 'x'":                                       all,
		"deviceId = 'a'":                                     id("a"),
		"'a' = DeviceID":                                     id("a"),
		"deviceId = 5":                                       all,
		"deviceId = tags.a":                                  all,
		"deviceId != 'a'":                                    all,
		"NOT deviceId = 'a'":                                 all,
		"deviceId NIN ['a']":                                 all,
		"deviceId.x = 'a'":                                   all,
		"deviceId IN ['c', 'a', 'b', 'a']":                   id("a", "b", "c"),
		"deviceId IN ['a', tags.a]":                          all,
		"deviceId IN []":                                     nil,
		"deviceId = 'a' OR deviceId = 'b'":                   id("a", "b"),
		"deviceId = 'a' OR tags.a = 1":                       all,
		"deviceId = 'a' AND tags.a = 1":                      id("a"),
		"deviceId = 'a' AND deviceId = 'b'":                  nil,
		"deviceId IN ['a', 'b', 'd'] AND deviceId >= 'b'":    id("b", "d"),
		"startswith(deviceId, 'dev-')":                       {{From: "dev-", To: "dev."}},
		"STARTSWITH(deviceId, '')":                           all,
		"STARTSWITH('dev', deviceId)":                        all,
		"ENDSWITH(deviceId, 'a')":                            all,
		"STARTSWITH(deviceId, 'a') OR STARTSWITH(id, 'ab')":  {{From: "a", To: "b"}},
		"STARTSWITH(deviceId, 'ab') AND STARTSWITH(id, 'a')": {{From: "ab", To: "ac"}},
		"deviceId > 'a' AND 'c' >= deviceId":                 {{From: "a\x00", To: "c\x00"}},
		"deviceId < 'a' OR deviceId >= 'c'":                  {{To: "a"}, {From: "c"}},
		"deviceId < 'b' OR deviceId >= 'a'":                  all,
		"deviceId < ''":                                      nil,
	} {
		q, err := query.ParseCondition(condition)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, q.Ranges(query.DeviceID)); diff != "" {
			t.Errorf("ranges of %s (-want +got):\n%s", condition, diff)
		}
	}
	for condition, want := range map[string]string{
		"properties.reported.$metadata.$lastUpdated >= '2024-05'":                                                         "2024-05",
		"properties.desired.$metadata.a.b.$lastUpdated > '2024'":                                                          "2024\x00",
		"properties.reported.$metadata.$lastUpdated < '2024'":                                                             "",
		"properties.reported.$metadata.$lastUpdated < '2020' AND properties.desired.$metadata.$lastUpdated > '2024'":      "2024\x00",
		"properties.reported.$metadata.$lastUpdated > '2020' OR properties.desired.$metadata.$lastUpdated = '2019'":       "2019",
		"properties.reported.$metadata.$lastUpdated > '2020' OR tags.a":                                                   "",
		"properties.reported.$metadata.$lastUpdatedVersion > '2020'":                                                      "",
		"STARTSWITH(properties.reported.$metadata.$lastUpdated, '2024-05') AND properties.reported.$lastUpdated > '2025'": "2024-05",
	} {
		q, err := query.ParseCondition(condition)
		if err != nil {
			t.Fatal(err)
		}
		if got := q.UpdatedFrom(); got != want {
			t.Errorf("%s: updated from %q, want %q", condition, got, want)
		}
	}
}

func TestWhatAQueryIsAbout(t *testing.T) {
	type about struct {
		From      query.Collection
		ItemType  string
		Columns   []string
		Top       int
		Aggregate bool
	}
	for text, want := range map[string]about{
		"SELECT * FROM devices":                                                  {query.Devices, "Twin", nil, 0, false},
		"SELECT TOP 7 * FROM devices.modules":                                    {query.Modules, "Twin", nil, 7, false},
		"SELECT * FROM devices.jobs":                                             {query.Jobs, "DeviceJob", nil, 0, false},
		"SELECT ID, tags.a[0], properties.desired.$version FROM devices":         {query.Devices, "Raw", []string{"deviceId", "a", "$version"}, 0, false},
		"SELECT tags.a AS x, tags.b AS y, tags.c AS x FROM devices":              {query.Devices, "Raw", []string{"y", "x"}, 0, false},
		"SELECT tags.a, COUNT(), SUM(version) AS s FROM devices GROUP BY tags.a": {query.Devices, "Raw", []string{"a", "$2", "s"}, 0, true},
		"SELECT tags.a FROM devices GROUP BY devices.tags.a":                     {query.Devices, "Raw", []string{"a"}, 0, true},
	} {
		q, err := query.Parse(text)
		if err != nil {
			t.Error(err)
			continue
		}
		got := about{q.From(), q.ItemType(), q.Columns(), q.Top(), q.Aggregates()}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestAQuerySaysWhichFieldsItNeeds(t *testing.T) {
	q, err := query.Parse("SELECT deviceId, COUNT(), MAX(properties.reported.x) FROM devices WHERE NOT (tags.a IN [status, -version] " +
		"OR STARTSWITH(nope, properties.reported.$metadata.$lastUpdated)) GROUP BY deviceId")
	if err != nil {
		t.Fatal(err)
	}
	fields := func(s query.FieldSet) (list []query.Field) {
		for f := query.Field(0); f < 64; f++ {
			if s.Has(f) {
				list = append(list, f)
			}
		}
		return list
	}
	if diff := cmp.Diff([]query.Field{query.Status, query.Version, query.Tags, query.ReportedMetadata}, fields(q.ConditionFields())); diff != "" {
		t.Errorf("condition (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]query.Field{query.DeviceID, query.ReportedProperties}, fields(q.ResultFields())); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
}

func project(t testing.TB, q *query.Query, doc query.Text) string {
	t.Helper()
	row, err := q.Project(nil, doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(row)
}

func TestNumbersKeepTheirText(t *testing.T) {
	doc := query.Text(`{"tags":{"a":12345678901234567890,"b":1.50,"c":-0,"d":[1E2]}}`)
	q, err := query.Parse("SELECT tags.a, tags.b, tags.c, tags.d FROM devices")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := project(t, q, doc), `{"a":12345678901234567890,"b":1.50,"c":-0,"d":[1E2]}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	q, err = query.Parse("SELECT MAX(tags.a) AS a, SUM(tags.b) AS b FROM devices")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(run(t, q, []query.Text{doc})[0]), `{"a":12345678901234567890,"b":1.5}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The Java SDK's tests select such names from the service as they are, and expect their values.
func TestAHyphenJoinsAName(t *testing.T) {
	doc := query.Text(`{"tags":{"my-tag":"x","a":5,"b":2,"a-b":7,"n-1":{"deep-er":true}},"version":3}`)
	for condition, want := range map[string]bool{
		"tags.my-tag = 'x'":               true,
		"tags.[[my-tag]] = tags.my-tag":   true,
		"tags.n-1.deep-er":                true,
		"tags.a-b = 7":                    true,
		"tags.a - tags.b = 3":             true,
		"tags.a -tags.b = 3":              true,
		"10-version = 7":                  true,
		"tags.a-1 = 4":                    false, // there is no tag of that name
		"tags.my-tag IN ['w', 'x']":       true,
		"IS_DEFINED(tags.my-tag)":         true,
		"STARTSWITH(tags.my-tag, 'x')":    true,
		"NOT IS_DEFINED(tags.my-tag.own)": true,
	} {
		q, err := query.ParseCondition(condition)
		if err != nil {
			t.Errorf("%s: %v", condition, err)
			continue
		}
		if got := q.Match(doc); got != want {
			t.Errorf("%s is %v, want %v", condition, got, want)
		}
	}
	q, err := query.Parse("SELECT tags.my-tag, tags.n-1.deep-er AS is-it FROM devices")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"my-tag":"x","is-it":true}`, project(t, q, doc)); diff != "" {
		t.Errorf("the row (-want +got):\n%s", diff)
	}
}

// A list of many constants answers as one of few.
func TestManyValues(t *testing.T) {
	doc := query.Text(`{"tags":{"text":"café","escaped":"caf\u00e9","empty":"","n":1.50,"zero":-0,"yes":true,"no":false,"nothing":null,"o":{},"a":[1]}}`)
	for name, list := range map[string]string{
		"few":    "'café', '', 1.5, 0, true, null",
		"many":   "'café', '', 1.5, 0, true, null, 'x1', 'x2', 'x3', 'x4', 7, 8, 9, undefined, [1]",
		"nested": "'café', '', 1.5, 0, tags.yes, null, 'x1', 'x2', 'x3', 'x4', 7, 8, 9, undefined, tags.nope",
	} {
		for value, want := range map[string]bool{
			"text": true, "escaped": true, "empty": true, "n": true, "zero": true, "yes": true, "no": false, "nothing": true,
			"o": false, "a": false, "nope": false,
		} {
			for _, condition := range []string{
				"tags." + value + " IN [" + list + "]",
				"ARRAY_CONTAINS([" + list + "], tags." + value + ")",
			} {
				q, err := query.ParseCondition(condition)
				if err != nil {
					t.Fatal(err)
				}
				if got := q.Match(doc); got != want {
					t.Errorf("%s: %s is %v, want %v", name, condition, got, want)
				}
			}
		}
	}
}

func TestHints(t *testing.T) {
	for text, want := range map[string][]string{
		"SELECT * FROM devices": nil,
		"SELECT deviceId AS [[x-1]], tags.my-tag FROM devices WHERE tags.a AND NOT tags.b = null AND (status = 'enabled') = true AND 1 - version > 0": nil,
		"SELECT * FROM devices WHERE tags.site = north": {
			"north is no member of a twin: properties begin with tags, properties.desired or properties.reported, and a text stands in quotes"},
		"SELECT site, COUNT() FROM devices WHERE site > 1 GROUP BY site": {
			"site is no member of a twin: properties begin with tags, properties.desired or properties.reported, and a text stands in quotes"},
		"SELECT * FROM devices.jobs WHERE tags.site = 'north' AND status = 'cancelled'": {
			"tags.site is no member of a row of devices.jobs, and a text stands in quotes",
			"status is never 'cancelled', but one of pending, scheduled, running, completed, failed, canceled"},
		"SELECT MAX(properties.level) FROM devices":         {"properties.level is never there: below properties are desired and reported"},
		"SELECT * FROM devices WHERE tags.level-1 = 4":      {"'level-1' is one name: a minus has blanks around it"},
		"SELECT * FROM devices WHERE tags.a = undefined":    {"nothing compares with undefined: IS_DEFINED(tags.a) asks whether it is there"},
		"SELECT * FROM devices WHERE undefined != tags.a":   {"nothing compares with undefined: IS_DEFINED(tags.a) asks whether it is there"},
		"SELECT * FROM devices WHERE status = 'Enabled'":    {"status is never 'Enabled', but one of enabled, disabled"},
		"SELECT * FROM devices WHERE 1 != connectionState":  {"connectionState is never 1, but one of Connected, Disconnected"},
		"SELECT * FROM devices WHERE connectionState < 'E'": nil,
		"SELECT * FROM devices WHERE configurations.[[c]].status IN ['Applied', 'applied']": {
			"configurations.c.status is never 'applied', but one of Targeted, Applied"},
		"SELECT * FROM devices WHERE tags.a = 'x' OR 'y'":         {"'y' stands alone at OR and is never true: compare it with something, several values by IN [...]"},
		"SELECT * FROM devices WHERE NOT (tags.a + 1) AND ['x']":  {"tags.a + 1 at NOT is never true: compare it with something", "['x'] at AND is never true: compare it with something"},
		"SELECT * FROM devices WHERE IS_DEFINED((tags.a OR 'y'))": {"'y' stands alone at OR and is never true: compare it with something, several values by IN [...]"},
		"SELECT * FROM devices WHERE 'y'":                         {"'y' stands alone at WHERE and is never true: compare it with something, several values by IN [...]"},
	} {
		q, err := query.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, q.Hints()); diff != "" {
			t.Errorf("hints of %s (-want +got):\n%s", text, diff)
		}
	}
}

// A query can name the same part of a twin hundreds of times.
func TestALargeRowIsRefused(t *testing.T) {
	doc := query.Text(`{"tags":{"a":"` + strings.Repeat("x", 100_000) + `"}}`)
	columns := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("tags.a AS c%d", i))
		}
		return strings.Join(list, ", ")
	}
	for name, tt := range map[string]struct {
		text string
		want error
	}{
		"a large row":                {"SELECT " + columns(40) + " FROM devices", nil},
		"one that is too large":      {"SELECT " + columns(50) + " FROM devices", query.ErrRowTooLarge},
		"a large group":              {"SELECT " + columns(40) + " FROM devices GROUP BY tags.a", nil},
		"a group that is too large":  {"SELECT " + columns(50) + " FROM devices GROUP BY tags.a", query.ErrRowTooLarge},
		"columns of the same name":   {"SELECT " + strings.Repeat("tags.a,", 99) + "tags.a FROM devices", nil},
		"the extremes of no numbers": {"SELECT MIN(tags.a) AS lo, MAX(tags.a) AS hi FROM devices", nil},
	} {
		q, err := query.Parse(tt.text)
		if err != nil {
			t.Fatal(err)
		}
		if q.Aggregates() {
			groups := q.NewGroups("", 10)
			groups.Add(doc)
			_, _, err = groups.Rows(1)
		} else {
			_, err = q.Project(nil, doc)
		}
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}
