package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"postbus.example/endpoint"
)

type (
	// Profile is of one user.
	Profile struct {
		ID        string    `json:"id"`
		Name      string    `json:"name,omitempty"`
		Addresses []Address `json:"addresses,omitempty"`
	}
	// Address is one of a profile's.
	Address struct {
		ID       string `json:"id" doc:"unique within the profile"`
		Location string `json:"location,omitempty"`
	}
	// Key names a profile.
	Key struct {
		ID string `json:"id"`
	}
	// Owner names the profile whose addresses are meant.
	Owner struct {
		Profile string `json:"profile"`
	}
	// AddressKey names an address.
	AddressKey struct {
		Owner
		Key
	}
	// NewAddress is an address to add.
	NewAddress struct {
		Owner
		Address
	}
	// Addresses are those of a profile.
	Addresses struct {
		Addresses []Address `json:"addresses"`
	}
	// Done is the answer that says nothing.
	Done struct{}
)

// Service is the contract. Its endpoints are named by what they are below "profiles".
type Service struct {
	Post   endpoint.Unary[*Profile, *Profile] `rpc:"post" doc:"adds a profile"`
	Get    endpoint.Unary[*Key, *Profile]     `rpc:"get,readonly" doc:"returns a profile"`
	Put    endpoint.Unary[*Profile, *Profile] `rpc:"put,idempotent" doc:"adds or replaces a profile"`
	Patch  endpoint.Unary[*Profile, *Profile] `rpc:"patch,idempotent" doc:"changes the fields of a profile that are given"`
	Delete endpoint.Unary[*Key, *Done]        `rpc:"delete,idempotent" doc:"removes a profile"`

	ListAddresses endpoint.Unary[*Owner, *Addresses]    `rpc:"addresses.list,readonly" doc:"returns all addresses of a profile"`
	GetAddress    endpoint.Unary[*AddressKey, *Address] `rpc:"addresses.get,readonly" doc:"returns one address of a profile"`
	PostAddress   endpoint.Unary[*NewAddress, *Address] `rpc:"addresses.post" doc:"adds an address to a profile"`
	DeleteAddress endpoint.Unary[*AddressKey, *Done]    `rpc:"addresses.delete,idempotent" doc:"removes an address of a profile"`
}

// The service's errors: 404, 409 and 400 over HTTP.
var (
	ErrNotFound = errors.New("there is no such profile or address")
	ErrExists   = errors.New("it exists already")
	ErrNoID     = errors.New("the id is empty")
)

// Options declares the errors for both sides.
func (Service) Options(string) []endpoint.Option {
	return []endpoint.Option{
		endpoint.ErrorValue("profiles.not_found", endpoint.NotFound, ErrNotFound),
		endpoint.ErrorValue("profiles.exists", endpoint.AlreadyExists, ErrExists),
		endpoint.ErrorValue("profiles.no_id", endpoint.InvalidArgument, ErrNoID),
	}
}

// store keeps profiles in memory.
type store struct {
	mu       sync.Mutex
	profiles map[string]Profile
}

func newStore() *store { return &store{profiles: map[string]Profile{}} }

func (s *store) service() Service {
	return Service{
		Post: s.post, Get: s.get, Put: s.put, Patch: s.patch, Delete: s.delete,
		ListAddresses: s.listAddresses, GetAddress: s.getAddress, PostAddress: s.postAddress, DeleteAddress: s.deleteAddress,
	}
}

// change runs f on a copy of a profile, and keeps what f leaves there if it returns no error.
func (s *store) change(id string, f func(p *Profile, known bool) error) (*Profile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, known := s.profiles[id]
	p.ID, p.Addresses = id, slices.Clone(p.Addresses)
	if err := f(&p, known); err != nil {
		return nil, err
	}
	s.profiles[id] = p
	return &p, nil
}

func mustExist(_ *Profile, known bool) error {
	if !known {
		return ErrNotFound
	}
	return nil
}

func (s *store) post(_ context.Context, r *Profile) (*Profile, error) {
	if r.ID == "" {
		return nil, ErrNoID
	}
	return s.change(r.ID, func(p *Profile, known bool) error {
		if known {
			return ErrExists
		}
		*p = *r
		return nil
	})
}

func (s *store) get(_ context.Context, r *Key) (*Profile, error) { return s.change(r.ID, mustExist) }

func (s *store) put(_ context.Context, r *Profile) (*Profile, error) {
	return s.change(r.ID, func(p *Profile, _ bool) error { *p = *r; return nil })
}

func (s *store) patch(_ context.Context, r *Profile) (*Profile, error) {
	return s.change(r.ID, func(p *Profile, known bool) error {
		p.Name = cmp.Or(r.Name, p.Name)
		if r.Addresses != nil {
			p.Addresses = r.Addresses
		}
		return mustExist(p, known)
	})
}

func (s *store) delete(_ context.Context, r *Key) (*Done, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.profiles[r.ID]; !known {
		return nil, ErrNotFound
	}
	delete(s.profiles, r.ID)
	return &Done{}, nil
}

func (s *store) listAddresses(_ context.Context, r *Owner) (*Addresses, error) {
	p, err := s.change(r.Profile, mustExist)
	if err != nil {
		return nil, err
	}
	return &Addresses{append([]Address{}, p.Addresses...)}, nil
}

func (p *Profile) find(id string) int {
	return slices.IndexFunc(p.Addresses, func(a Address) bool { return a.ID == id })
}

func (s *store) getAddress(_ context.Context, r *AddressKey) (*Address, error) {
	p, err := s.change(r.Profile, mustExist)
	if err != nil {
		return nil, err
	}
	i := p.find(r.ID)
	if i < 0 {
		return nil, ErrNotFound
	}
	return &p.Addresses[i], nil
}

func (s *store) postAddress(_ context.Context, r *NewAddress) (*Address, error) {
	if r.ID == "" {
		return nil, ErrNoID
	}
	_, err := s.change(r.Profile, func(p *Profile, known bool) error {
		if known && p.find(r.ID) >= 0 {
			return ErrExists
		}
		p.Addresses = append(p.Addresses, r.Address)
		return mustExist(p, known)
	})
	return &r.Address, err
}

func (s *store) deleteAddress(_ context.Context, r *AddressKey) (*Done, error) {
	_, err := s.change(r.Profile, func(p *Profile, known bool) error {
		i := p.find(r.ID)
		if i < 0 {
			return ErrNotFound
		}
		p.Addresses = slices.Delete(p.Addresses, i, i+1)
		return mustExist(p, known)
	})
	return &Done{}, err
}
