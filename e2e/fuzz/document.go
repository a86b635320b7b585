package fuzz

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// document is the gate's OpenAPI document. It alone says which operations there are,
// what they take and what they may answer.
type document struct {
	doc        *openapi3.T
	operations []*operation
}

// operation is one of them.
type operation struct {
	method, template string
	path             *regexp.Regexp
	spec             *openapi3.Operation
	parameters       openapi3.Parameters
}

func (o *operation) String() string { return o.method + " " + o.template }

func (o *operation) authorised() bool { return o.spec.Security != nil && len(*o.spec.Security) > 0 }

// body is the schema of a request, nil where it has none.
func (o *operation) body() *openapi3.Schema {
	if o.spec.RequestBody == nil || o.spec.RequestBody.Value == nil {
		return nil
	}
	if media := o.spec.RequestBody.Value.Content["application/json"]; media != nil && media.Schema != nil {
		return media.Schema.Value
	}
	return nil
}

var pathParameter = regexp.MustCompile(`\\\{[^/]+\\\}`)

func newDocument(text []byte) (*document, error) {
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, fmt.Errorf("the OpenAPI document: %w", err)
	}
	d := &document{doc: doc}
	for _, template := range slices.Sorted(maps.Keys(doc.Paths.Map())) {
		item := doc.Paths.Value(template)
		path := pathParameter.ReplaceAllString(regexp.QuoteMeta(template), "[^/]+")
		for _, method := range slices.Sorted(maps.Keys(item.Operations())) {
			spec := item.Operations()[method]
			d.operations = append(d.operations, &operation{
				method: method, template: template, path: regexp.MustCompile("^" + path + "$"), spec: spec,
				parameters: append(slices.Clone(item.Parameters), spec.Parameters...),
			})
		}
	}
	if len(d.operations) == 0 {
		return nil, errors.New("the OpenAPI document has no operations")
	}
	return d, nil
}

// find is the operation that a request asks for, nil for none. A HEAD is a GET without
// the body.
func (d *document) find(method, path string) *operation {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for _, o := range d.operations {
		if o.method == method && o.path.MatchString(path) {
			return o
		}
	}
	return nil
}

const problemType = "application/problem+json"

// problem judges a refusal by the schema of problems.
func (d *document) problem(media string, body []byte) error {
	if media != problemType {
		return fmt.Errorf("a refusal of type %q", media)
	}
	schema := d.doc.Components.Schemas["Problem"]
	if schema == nil {
		return errors.New("the document has no schema Problem")
	}
	return judge(schema.Value, body)
}

// judge says whether an answer of an operation is one that the document has.
func (o *operation) judge(status int, media string, body []byte, head bool) error {
	response := o.spec.Responses.Value(strconv.Itoa(status))
	if response == nil || response.Value == nil {
		return fmt.Errorf("the status %d", status)
	}
	content := response.Value.Content
	switch {
	case head:
		return nil
	case len(content) == 0 && len(body) == 0:
		return nil
	case len(content) == 0:
		return fmt.Errorf("a body with the status %d", status)
	}
	name, _, _ := strings.Cut(media, ";")
	kind := content[name]
	if kind == nil || kind.Schema == nil {
		return fmt.Errorf("the type %q with the status %d", media, status)
	}
	return judge(kind.Schema.Value, body)
}

func judge(schema *openapi3.Schema, body []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(body))
	var value any
	if err := decoder.Decode(&value); err != nil {
		return fmt.Errorf("an answer that is no JSON: %w", err)
	}
	if decoder.More() {
		return errors.New("an answer of two JSON values")
	}
	if err := schema.VisitJSON(value, openapi3.MultiErrors()); err != nil {
		return fmt.Errorf("an answer that does not fit its schema: %w", err)
	}
	return nil
}

// has says whether a schema allows a type; one without types allows any.
func has(schema *openapi3.Schema, kind string) bool {
	return schema.Type == nil || slices.Contains(*schema.Type, kind)
}
